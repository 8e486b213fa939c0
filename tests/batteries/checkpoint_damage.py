"""Every kind of damage to a checkpoint, done to copies of a run, and what each way of using the run makes of it.

`damaged` is the long form, for the battery; the tests call it with few flips and cuts.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpen.errors import CheckpointError
from sharpen.launch.load import load
from sharpen.launch.run import resume
from sharpen.runs import checkpoint_check
from sharpen.runs.checkpoint_check import MANIFEST
from sharpen.runs.checkpoint_list import checkpoints

ONLY_RESUMED = ("trainer/optimizer", "trainer/pending", "critic/", "reference/")
"""What is not read to use the model."""


@dataclass(frozen=True)
class Damage:
    """``do`` is given the checkpoint. ``of_model``: whether it touches what is read to use the model."""

    name: str
    do: Callable[[Path], None]
    of_model: bool = True


def damages(checkpoint: Path, *, flips: int, cuts: int, seed: int = 0) -> Iterator[Damage]:
    """``flips`` of one bit and ``cuts`` in each file, each file removed, replaced and added; manifests changed."""
    rng = random.Random(seed)
    for file in sorted(file for file in checkpoint.rglob("*") if file.is_file()):
        name, size = str(file.relative_to(checkpoint)), file.stat().st_size
        of_model = not name.startswith(ONLY_RESUMED)
        for place in [0, size - 1, *(rng.randrange(size) for _ in range(flips))][:flips]:
            bit = rng.randrange(8)
            yield Damage(f"{name}: bit {bit} of byte {place} flipped", _flip(name, place, bit), of_model)
        for length in [0, size - 1, *(rng.randrange(size) for _ in range(cuts))][:cuts]:
            yield Damage(f"{name}: cut to {length} bytes", _cut(name, length), of_model)
        yield Damage(f"{name}: removed", lambda c, name=name: (c / name).unlink(), of_model)
        yield Damage(f"{name}: a folder", _replace(name, Path.mkdir), of_model)
        yield Damage(f"{name}: a pipe", _replace(name, os.mkfifo), of_model)
        yield Damage(f"{name}: a link to nothing", _replace(name, lambda p: p.symlink_to("nothing")), of_model)
        yield Damage(f"{name}: a link to itself", _replace(name, lambda p: p.symlink_to(p)), of_model)
    for name in ADDED:
        yield Damage(f"{name}: added", lambda c, name=name: _add(c / name), "/" not in name or "remainder" in name)
    for number, change in enumerate(MANIFESTS):
        yield Damage(f"manifest {number} of the changed ones", _of_manifest(change))


ADDED = (
    *("pytorch_model.bin", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "modeling_own.py"),
    *("vocab.txt", "tokenizer.model", "chat_template.jinja", "adapter_config.json", "value_head.safetensors"),
    *("trainer/remainder.safetensors", "trainer/pending.json"),
)
HARMLESS = ("notes.txt", "README.md", ".DS_Store", "curve.png", "measured/scores.json")

DEEP = "[" * 100_000
MANIFESTS: tuple[Callable[[dict[str, Any]], Any], ...] = (
    *(lambda m, text=text: text for text in ("", "null", "[]", '"text"', "3", "{}", DEEP, "\udcff", "\0", '{"step": ')),
    *(lambda m, step=step: {**m, "step": step} for step in (None, "4", 4.0, True, -1, 3, [4], 10**30)),
    *(lambda m, hashes=hashes: {**m, "sha256": hashes} for hashes in (None, {}, [], "text", 7, [["a", "b"]])),
    *(
        lambda m, name=name: {**m, "sha256": {**m["sha256"], name: "0" * 64}}
        for name in ("../other", "/etc/passwd", "a/../../b", "", ".", "trainer/", "a\0b", "a\nb", "x" * 5000, "\ud800")
    ),
    *(lambda m, value=value: _with(m, "config.json", value) for value in (None, 1, "", "0" * 64, ["0" * 64], {})),
    lambda m: {**m, "sha256": {name: h for name, h in m["sha256"].items() if not name.endswith(".safetensors")}},
    lambda m: {**m, "sha256": {name: h for name, h in m["sha256"].items() if name != "trainer/state.json"}},
    lambda m: {name: value for name, value in m.items() if name != "step"},
    lambda m: {name: value for name, value in m.items() if name != "sha256"},
)


def damaged(run: Path, folder: Path, *, flips: int = 20, cuts: int = 10, goes_on: bool = True) -> tuple[int, list[str]]:
    """How many damages to the latest checkpoint of ``run`` were tried on copies in ``folder``, and what went wrong.

    The damaged checkpoint must be refused by its own path and skipped by its run, each by name, where what is damaged
    is used. With ``goes_on`` each damaged run is resumed too, from the checkpoint before, which it must have.
    """
    tried, wrong = 0, []
    latest = checkpoints(run / "checkpoints")[-1]
    for damage in damages(latest, flips=flips, cuts=cuts):
        copy = folder / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(run, copy)
        checkpoint = copy / "checkpoints" / latest.name
        damage.do(checkpoint)
        tried += 1
        wrong += [f"{damage.name}: {problem}" for problem in _problems(damage, copy, checkpoint, goes_on=goes_on)]
    return tried, wrong


def _problems(damage: Damage, run: Path, checkpoint: Path, *, goes_on: bool) -> Iterator[str]:
    # A flip between two words of the manifest changes nothing of what it says: only the run's list knows of it.
    if not damage.name.startswith(f"{MANIFEST}: bit") and checkpoint_check.damage(checkpoint) is None:
        yield "without its run's list, it looks sound"
    for what in (checkpoint, run):
        try:
            with warnings.catch_warnings(action="ignore"), load(what) as model:
                used = Path(model.path)
        except CheckpointError as error:
            if what == run:
                yield f"the run gives no model: {error}"
            elif not damage.of_model or str(checkpoint) not in str(error):
                yield f"by its own path: {error}"
        # Anything but that one error is a fault, which the battery is to say of this damage and go on.
        except Exception as error:  # noqa: BLE001
            yield f"using {what.name}: {error!r}"
        else:
            if (used == checkpoint) is damage.of_model:
                yield f"using {what.name}: {used.name} was used"
    if goes_on:
        said: list[str] = []
        try:
            ended = resume(run, say=said.append)
        except Exception as error:  # noqa: BLE001
            yield f"resuming: {error!r}"
        else:
            if not ended.finished or not any("skipped a checkpoint" in text for text in said):
                yield f"resuming: finished {ended.finished}, said {said}"


def _flip(name: str, place: int, bit: int) -> Callable[[Path], None]:
    def do(checkpoint: Path) -> None:
        content = bytearray((checkpoint / name).read_bytes())
        content[place] ^= 1 << bit
        (checkpoint / name).write_bytes(content)

    return do


def _cut(name: str, length: int) -> Callable[[Path], None]:
    return lambda checkpoint: os.truncate(checkpoint / name, length)


def _replace(name: str, by: Callable[[Path], Any]) -> Callable[[Path], None]:
    def do(checkpoint: Path) -> None:
        (checkpoint / name).unlink()
        by(checkpoint / name)

    return do


def _add(file: Path) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(b"{}")


def _of_manifest(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def do(checkpoint: Path) -> None:
        file = checkpoint / MANIFEST
        changed = change(json.loads(file.read_text()))
        text = changed if isinstance(changed, str) else json.dumps(changed)
        file.write_bytes(text.encode("utf-8", "surrogateescape"))

    return do


def _with(manifest: dict[str, Any], name: str, value: Any) -> dict[str, Any]:
    return {**manifest, "sha256": {**manifest["sha256"], name: value}}
