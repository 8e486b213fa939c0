"""Disks that fail, are full or are read-only: the run ends with a named error, and goes on when they work."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from batteries.children import REFUSED, in_child
from batteries.file_operations import Fault
from batteries.kills import disturbed
from batteries.part import Outcome
from batteries.tiny_cases import CASES, all_of, go_on, recipe_of
from sharpen.recipe.schema import Recipe
from tiny_runs import tiny_start_model

SHORT = ("grpo, lag of two",)
ONE_OF, SHORT_ONE_OF = 4, 40
"""Of the operations within a folder that is not yet a checkpoint, how many are tried."""
FILLED = 24
"""Sizes of a disk that is too small, from nothing to what a run takes."""
SHORT_FILLED = 4
UNMOUNTS = 50
ON_SMALL_DISKS = ("grpo, lag of two", "ppo", "rft, from its start")


def failing_disks(short: bool) -> Outcome:
    """EIO at an operation, and a disk that is full or read-only from an operation on."""
    outcome = Outcome()
    for name in SHORT if short else [name for name, case in CASES.items() if case.short]:
        for fault in (Fault.FAILING, Fault.FULL, Fault.READ_ONLY):
            found = disturbed(name, fault, SHORT_ONE_OF if short else ONE_OF)
            outcome += found
            print(f"{name}: {found.cases} times {fault}", flush=True)
    return outcome


def small_disks(short: bool) -> Outcome:
    """Real disks of too few bytes, which grow afterwards, and real read-only ones."""
    outcome = Outcome()
    if os.geteuid() != 0 or not shutil.which("mount"):
        outcome.skipped.append("only root can mount a small disk")
        return outcome
    for name in ON_SMALL_DISKS[:1] if short else ON_SMALL_DISKS:
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            recipe = recipe_of(CASES[name], folder / "whole", tiny_start_model(folder / "model"))
            assert in_child(lambda recipe=recipe, run=folder / "whole": go_on(run, recipe)) == 0
            taken = sum(file.stat().st_size for file in folder.joinpath("whole").rglob("*"))
            sizes = SHORT_FILLED if short else FILLED
            for number in range(1, sizes + 1):
                outcome.cases += 1
                if (problem := _on_small_disk(recipe, folder, 2 * taken * number // sizes)) is not None:
                    outcome.failed(f"{name}: a disk of {2 * taken * number // sizes} bytes: {problem}")
        print(f"{name}: {sizes} sizes of a disk", flush=True)
    return outcome


def _on_small_disk(recipe: Recipe, folder: Path, size: int) -> str | None:
    run, expected = folder / "disk" / "run", all_of(folder / "whole")
    with _disk(folder / "disk", size):
        status = in_child(lambda: go_on(run, recipe))
        if status not in (0, REFUSED):
            return f"it ended with {status}"
        _mount("-o", f"remount,ro,size={size}", folder / "disk")
        if status == REFUSED and (status := in_child(lambda: go_on(run, recipe))) != REFUSED:
            return f"read-only, it ended with {status}"
        _mount("-o", "remount,rw,size=1g", folder / "disk")
        if (status := in_child(lambda: go_on(run, recipe))) != 0:
            return f"with room, it ended with {status}"
        return None if all_of(run) == expected else "with room, it ends otherwise than on a large disk"


@contextmanager
def _disk(folder: Path, size: int) -> Iterator[None]:
    folder.mkdir(exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={max(size, 4096)}", "tmpfs", folder)
    try:
        yield
    finally:
        # The system may still be closing the files of a process that has just ended.
        for _ in range(UNMOUNTS):
            if subprocess.run(["umount", str(folder)], check=False).returncode == 0:
                break
            time.sleep(0.1)
        else:
            raise RuntimeError(f"{folder} cannot be unmounted")


def _mount(*arguments: str | Path) -> None:
    subprocess.run(["mount", *map(str, arguments)], check=True)
