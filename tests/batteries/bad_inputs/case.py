"""One bad input: a command, what it must say, and what it may leave behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from sharpen.cli.app import app
from tiny_runs import merge, tiny_start_model

WITHIN_S = 30.0
"""No bad input takes longer to be refused, Python's imports aside."""
IMPORTS_S = 60.0
"""Of a process of its own, on a busy machine."""
RUN = "runs/new"
TASK = "arithmetic?terms=2&digits=1&train_size=10&held_out_size=6&demonstration_size=10&preference_size=10"
RECIPE: dict[str, Any] = {
    "run": RUN,
    "model": {"path": "model", "device": "cpu"},
    "method": {"name": "grpo", "group_size": 2},
    "data": {"task": TASK},
    "rollout": {"max_new_tokens": 4},
    "training": {"steps": 1, "prompts_per_step": 4},
}
ROWS = [{"prompt": f"{a}+{a}=", "answer": str(a + a)} for a in range(1, 5)]

Files = Mapping[str, str | bytes]
Make = Callable[[Path], None]


@dataclass(frozen=True)
class Case:
    """A command in a folder of its own, which has a good ``recipe.yaml``, ``rows.jsonl`` and model.

    ``files`` and ``make`` change that folder first. ``words`` are what the message must hold, line ends as spaces.
    ``begins``: the run's folder is there afterwards, as only the running reward could tell. ``apart``: in a process of
    its own, with ``before`` as the shell commands that go before it.
    """

    name: str
    arguments: tuple[str, ...]
    words: tuple[str, ...]
    code: int = 2
    files: Files = field(default_factory=dict)
    make: Make | None = None
    begins: bool = False
    apart: bool = False
    before: str = ""


def check(case: Case, folder: Path) -> str:
    """Do what a case says in ``folder``, which is empty, and return what was printed.

    Raises AssertionError if the exit code, the words, the time or what is left is not as it must be.
    """
    shutil.copytree(tiny_model(), folder / "model")
    (folder / "recipe.yaml").write_text(json.dumps(RECIPE))
    # Without it, the hub would be asked for runs/none.
    (folder / "runs").mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for name, content in case.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    if case.make is not None:
        case.make(folder)
    began = time.monotonic()
    code, printed = _apart(case, folder) if case.apart else _within(case, folder)
    took_s = time.monotonic() - began
    said = " ".join(printed.split())
    assert "Traceback" not in printed, f"{case.name}: a traceback:\n{printed}"
    assert code == case.code, f"{case.name}: exit code {code}, not {case.code}:\n{printed}"
    lacking = [words for words in case.words if words not in said]
    assert not lacking, f"{case.name}: {lacking} not in:\n{printed}"
    assert len(printed) < 5_000, f"{case.name}: {len(printed)} letters:\n{printed[:2_000]}"
    assert took_s < WITHIN_S + case.apart * IMPORTS_S, f"{case.name}: took {took_s:.0f} s"
    if not case.begins:
        left = [path for path in (folder / "runs").rglob("*") if path.is_file()]
        assert not left, f"{case.name}: left {left}"
    return printed


def _within(case: Case, folder: Path) -> tuple[int, str]:
    with contextlib.chdir(folder):
        result = CliRunner(env={"COLUMNS": "100"}).invoke(app, list(case.arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return 1, "".join(traceback.format_exception(result.exception))
    return result.exit_code, result.output


def _apart(case: Case, folder: Path) -> tuple[int, str]:
    command = [sys.executable, "-c", "from sharpen.cli.app import main; main()", *case.arguments]
    if case.before:
        # A mount of a process's own needs a name space of its own.
        command = [
            "unshare",
            "--user",
            "--map-root-user",
            "--mount",
            "sh",
            "-c",
            f'{case.before}\nexec "$@"',
            "sh",
            *command,
        ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, timeout=120, check=False, stdin=subprocess.DEVNULL
    )
    return done.returncode, (done.stdout + done.stderr).decode(errors="replace")


@cache
def tiny_model() -> Path:
    """Made once in a process; the system removes it with its temporary folder."""
    return tiny_start_model(Path(tempfile.mkdtemp(prefix="bad-inputs-")) / "model")


def of_recipe(name: str, content: str | bytes, *words: str) -> Case:
    return Case(f"recipe: {name}", ("run", "recipe.yaml"), words, files={"recipe.yaml": content})


def changed(name: str, changes: Mapping[str, Any], *words: str, **more: Any) -> Case:
    files = {"recipe.yaml": json.dumps(merge(RECIPE, changes)), **more.pop("files", {})}
    return Case(name, ("run", "recipe.yaml", "-q"), words, files=files, **more)


def overridden(name: str, *overrides: str, words: tuple[str, ...], **more: Any) -> Case:
    return Case(name, ("run", "recipe.yaml", *overrides), words, **more)
