"""Checkpoints: complete or not there, recognised when damaged, and exact.

A checkpoint is an ordinary Hugging Face folder (safetensors, configuration, tokenizer) with the trainer's state in
``trainer/`` and a manifest of every file's hash. It is written under another name and renamed when it is whole; what
it replaces is removed after that. Names that begin with a dot are of work that is under way, or that was cut off.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file

from sharpen.errors import CheckpointError
from sharpen.system.files import flush

MANIFEST = "manifest.json"
PARTIAL, REPLACED, REMOVED = ".partial_", ".replaced_", ".removed_"


class Saved(Protocol):
    """A model, as far as a checkpoint knows of it."""

    def save(self, folder: Path) -> None:
        """Write it to a folder, beside what is there."""
        ...


def save_checkpoint(
    folder: Path,
    step: int,
    models: Mapping[str, Saved],
    optimizers: Mapping[str, torch.optim.Optimizer],
    state: dict[str, Any],
) -> Path:
    """Write the checkpoint of ``step``; ``state`` is JSON.

    ``models`` go to the folders that they are named by; the model that the run makes is named ``""`` and is the
    checkpoint's own folder. ``optimizers`` are named likewise.
    """
    final = checkpoint_path(folder, step)
    partial = folder / f"{PARTIAL}{step:06d}"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "trainer").mkdir(parents=True)
    for name, model in models.items():
        model.save(partial / name)
    for name, optimizer in optimizers.items():
        save_file(_optimizer_tensors(optimizer), partial / "trainer" / _optimizer_file(name))
    _write_state(partial, state)
    _complete(partial, final, step)
    return final


def replace_model(checkpoint: Path, model: Saved, changes: Mapping[str, Any]) -> None:
    """Put another model of the same kind in the place of the one that a checkpoint holds, with changes of its state.

    Killed in between, the checkpoint has its old content, if need be after ``recover``.
    """
    step = int(checkpoint.name.removeprefix("step_"))
    partial = checkpoint.with_name(f"{PARTIAL}{step:06d}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(checkpoint, partial, ignore=shutil.ignore_patterns(MANIFEST))
    model.save(partial)
    _write_state(partial, {**load_state(checkpoint), **changes})
    _complete(partial, checkpoint, step)


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step_{step:06d}"


def _complete(partial: Path, final: Path, step: int) -> None:
    """Write the manifest of everything in ``partial``, force it to the disk, and give it its final name."""
    files = sorted(p for p in partial.rglob("*") if p.is_file())
    manifest = {"step": step, "sha256": {str(p.relative_to(partial)): _sha256(p) for p in files}}
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for file in (*files, partial / MANIFEST, partial, *(p for p in partial.rglob("*") if p.is_dir())):
        flush(file)
    _rename(partial, final)


def _rename(folder: Path, to: Path) -> None:
    """Rename a folder; what has the name already is removed only when the new one has it."""
    replaced = to.with_name(f"{REPLACED}{to.name}")
    if to.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        os.rename(to, replaced)
    os.rename(folder, to)
    flush(to.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def recover(folder: Path) -> None:
    """Put right what a killed process left. Only for who holds the run: it removes what another may be writing."""
    for replaced in folder.glob(f"{REPLACED}*"):
        name = folder / replaced.name.removeprefix(REPLACED)
        # Without a successor it is whole: its removal begins when that stands.
        if not name.exists():
            os.rename(replaced, name)
    for left in [path for prefix in (PARTIAL, REPLACED, REMOVED) for path in folder.glob(f"{prefix}*")]:
        shutil.rmtree(left)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the latest last. Whether they are sound, ``problem`` says."""
    return sorted(p for p in folder.glob("step_*") if p.is_dir())


def problem(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    manifest = checkpoint / MANIFEST
    if not manifest.is_file():
        return f"{checkpoint}: no {MANIFEST}, it was not completed"
    try:
        expected = json.loads(manifest.read_text(encoding="utf-8"))["sha256"]
    except (ValueError, KeyError):
        return f"{manifest}: cannot be read"
    for name, digest in expected.items():
        if not (checkpoint / name).is_file():
            return f"{checkpoint / name}: missing"
        if _sha256(checkpoint / name) != digest:
            return f"{checkpoint / name}: damaged, its content is not what was saved"
    return None


def sound_checkpoints(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """Checkpoints from the latest back, each with its problem or None."""
    for checkpoint in reversed(checkpoints(folder)):
        yield checkpoint, problem(checkpoint)


def set_aside(checkpoint: Path) -> None:
    """Rename a damaged checkpoint, so that it neither counts among the latest nor pushes a sound one out."""
    _rename(checkpoint, checkpoint.with_name(f"damaged_{checkpoint.name}"))


def load_state(checkpoint: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((checkpoint / "trainer" / "state.json").read_text(encoding="utf-8"))
    return state


def load_optimizer(checkpoint: Path, name: str, optimizer: torch.optim.Optimizer) -> None:
    """Fill the optimizer with the saved state."""
    tensors = load_file(checkpoint / "trainer" / _optimizer_file(name))
    state = optimizer.state_dict()
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        entries.setdefault(int(index), {})[name] = value
    count = sum(len(group["params"]) for group in state["param_groups"])
    if entries and max(entries) >= count:
        raise CheckpointError(f"{checkpoint}: its optimizer has more parameters than the model, {count}")
    optimizer.load_state_dict({"state": entries, "param_groups": state["param_groups"]})


def prune(folder: Path, keep: int, best: int | None) -> None:
    """Remove all but the latest ``keep`` checkpoints and that of step ``best``."""
    for checkpoint in checkpoints(folder)[:-keep]:
        if checkpoint.name != f"step_{best or 0:06d}":
            # Half removed, it must not look like a checkpoint.
            removed = folder / f"{REMOVED}{checkpoint.name}"
            _rename(checkpoint, removed)
            shutil.rmtree(removed)


def _write_state(checkpoint: Path, state: Mapping[str, Any]) -> None:
    (checkpoint / "trainer" / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")


def _optimizer_file(name: str) -> str:
    return f"optimizer_{name}.safetensors" if name else "optimizer.safetensors"


def _optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    return {
        f"{index}.{name}": value.contiguous().cpu()
        for index, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
