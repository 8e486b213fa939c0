"""Checkpoints: atomic, exact, and checked for damage.

A checkpoint is an ordinary Hugging Face folder (safetensors, configuration, tokenizer) with the trainer's state in
``trainer/`` and a manifest of every file's hash. It is written under another name and renamed when it is complete; only
then is the checkpoint that it replaces removed. Names that begin with a dot belong to work in progress or interrupted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from safetensors.torch import load_file, save_file

from sharpen.errors import CheckpointError
from sharpen.system.files import flush

MANIFEST = "manifest.json"
Dtype = Literal["float32", "bfloat16"]

PARTIAL, REPLACED, REMOVED = ".partial_", ".replaced_", ".removed_"


class Saved(Protocol):
    """A model that a checkpoint can hold."""

    def save(self, folder: Path, dtype: Dtype = "float32", *, exact: bool = False) -> None:
        """Write the model in ``dtype`` to a folder, keeping other files there; ``exact``: nothing of it is lost."""
        ...


def save_checkpoint(
    folder: Path,
    step: int,
    models: Mapping[str, Saved],
    optimizers: Mapping[str, torch.optim.Optimizer],
    state: dict[str, Any],
    texts: Mapping[str, str] | None = None,
    dtype: Dtype = "float32",
) -> Path:
    """Write the checkpoint of ``step``; ``state`` is JSON, ``texts`` are further files of the trainer's by name.

    The models' own files are in ``dtype``; in bfloat16 the trainer's files hold the rest of their weights.

    Each of ``models`` is written to the subfolder of its name; the run's main model is named ``""`` and goes to the
    checkpoint's own folder. ``optimizers`` have the same names.
    """
    final = checkpoint_path(folder, step)
    partial = folder / f"{PARTIAL}{step:06d}"
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "trainer").mkdir(parents=True)
    for name, model in models.items():
        model.save(partial / name, dtype, exact=True)
    for name, optimizer in optimizers.items():
        save_file(_optimizer_tensors(optimizer), partial / "trainer" / _optimizer_file(name))
    _write_state(partial, state)
    for name, text in (texts or {}).items():
        (partial / "trainer" / name).write_text(text, encoding="utf-8")
    _complete(partial, final, step)
    return final


def replace_model(checkpoint: Path, model: Saved, changes: Mapping[str, Any], dtype: Dtype = "float32") -> None:
    """Replace a checkpoint's main model by another of the same kind, and update its state by ``changes``.

    If the process is killed meanwhile, the checkpoint has its old content, perhaps only after ``recover``.
    """
    step = int(checkpoint.name.removeprefix("step_"))
    partial = checkpoint.with_name(f"{PARTIAL}{step:06d}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(checkpoint, partial, ignore=shutil.ignore_patterns(MANIFEST))
    model.save(partial, dtype, exact=True)
    _write_state(partial, {**load_state(checkpoint), **changes})
    _complete(partial, checkpoint, step)


def checkpoint_path(folder: Path, step: int) -> Path:
    return folder / f"step_{step:06d}"


def _complete(partial: Path, final: Path, step: int) -> None:
    """Write the manifest of everything in ``partial``, flush it to disk, and give it its final name."""
    files = sorted(p for p in partial.rglob("*") if p.is_file())
    manifest = {"step": step, "sha256": {str(p.relative_to(partial)): _sha256(p) for p in files}}
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for file in (*files, partial / MANIFEST, partial, *(p for p in partial.rglob("*") if p.is_dir())):
        flush(file)
    _rename(partial, final)


def _rename(folder: Path, to: Path) -> None:
    """Rename a folder; an older folder of that name is removed only after that."""
    replaced = to.with_name(f"{REPLACED}{to.name}")
    if to.exists():
        shutil.rmtree(replaced, ignore_errors=True)
        os.rename(to, replaced)
    os.rename(folder, to)
    flush(to.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def recover(folder: Path) -> None:
    """Clean up after a killed process. Requires the run's lock: it removes what another process may be writing."""
    for replaced in folder.glob(f"{REPLACED}*"):
        name = folder / replaced.name.removeprefix(REPLACED)
        # Without a successor it is complete: it is removed only after the successor has its name.
        if not name.exists():
            os.rename(replaced, name)
    for left in [path for prefix in (PARTIAL, REPLACED, REMOVED) for path in folder.glob(f"{prefix}*")]:
        shutil.rmtree(left)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in a folder, the latest last. ``problem`` says whether one is sound."""
    return sorted(p for p in folder.glob("step_*") if p.is_dir())


def problem(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, or None."""
    manifest = checkpoint / MANIFEST
    if not manifest.is_file():
        return f"{checkpoint}: no {MANIFEST}, it is incomplete"
    try:
        expected = json.loads(manifest.read_text(encoding="utf-8"))["sha256"]
    except (ValueError, KeyError):
        return f"{manifest}: cannot be read"
    for name, digest in expected.items():
        if not (checkpoint / name).is_file():
            return f"{checkpoint / name}: missing"
        if _sha256(checkpoint / name) != digest:
            return f"{checkpoint / name}: damaged, its hash is not that of the saved file"
    return None


def latest_sound(folder: Path) -> tuple[Path | None, dict[Path, str]]:
    """The latest checkpoint that is sound, if any, and the later ones, the latest first, with what is wrong."""
    damaged: dict[Path, str] = {}
    for checkpoint in reversed(checkpoints(folder)):
        if (damage := problem(checkpoint)) is None:
            return checkpoint, damaged
        damaged[checkpoint] = damage
    return None, damaged


def set_aside(checkpoint: Path) -> None:
    """Rename a damaged checkpoint, so that it neither counts as the latest nor makes ``prune`` remove a sound one."""
    _rename(checkpoint, checkpoint.with_name(f"damaged_{checkpoint.name}"))


def load_state(checkpoint: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((checkpoint / "trainer" / "state.json").read_text(encoding="utf-8"))
    return state


def load_text(checkpoint: Path, name: str) -> str | None:
    """One of the trainer's further files; None if the checkpoint has none of that name."""
    file = checkpoint / "trainer" / name
    return file.read_text(encoding="utf-8") if file.exists() else None


def load_optimizer(checkpoint: Path, name: str, optimizer: torch.optim.Optimizer) -> None:
    """Load an optimizer's saved state."""
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
    """Remove all checkpoints but the latest ``keep`` and that of step ``best``."""
    for checkpoint in checkpoints(folder)[:-keep]:
        if checkpoint.name != f"step_{best or 0:06d}":
            # Renamed first: half removed, it must not look like a checkpoint.
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
