"""Writing checkpoints: atomic, exact, and with a hash of every file.

A checkpoint is an ordinary Hugging Face folder (safetensors, configuration, tokenizer) with the trainer's state in
``trainer/`` and a manifest of every file's hash. It is written under another name, listed and renamed when it is
complete (`sharpen.runs.checkpoint_list`); only then is the checkpoint that it replaces removed. Names that begin with a
dot belong to work in progress or interrupted.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from sharpen.runs.checkpoint_check import MANIFEST, read_manifest, sha256
from sharpen.runs.checkpoint_list import checkpoint_path, is_published, partial_path, publish
from sharpen.runs.checkpoint_state import load_state, write_optimizer, write_state
from sharpen.system.files import flush, named_write_errors

Dtype = Literal["float32", "bfloat16"]


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
    *,
    needed_bytes: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Write the checkpoint of ``step``; ``state`` is JSON, ``texts`` are further files of the trainer's by name.

    The models' own files are in ``dtype``; in bfloat16 the trainer's files hold the rest of their weights.

    Each of ``models`` is written to the subfolder of its name; the run's main model is named ``""`` and goes to the
    checkpoint's own folder. ``optimizers`` have the same names. ``needed_bytes`` is about what it takes on disk.
    ``say`` is told of a folder that is in the way and that the run did not write: it gets another name.

    Raises DiskError if the checkpoint cannot be written; nothing of it is then left.
    """
    with _partial(folder, step, needed_bytes) as partial:
        (partial / "trainer").mkdir(parents=True)
        for name, model in models.items():
            model.save(partial / name, dtype, exact=True)
        for name, optimizer in optimizers.items():
            write_optimizer(partial, name, optimizer)
        write_state(partial, state)
        for name, text in (texts or {}).items():
            (partial / "trainer" / name).write_text(text, encoding="utf-8")
        _complete(partial, step)
        if (moved := publish(partial, step)) is not None:
            say(f"{checkpoint_path(folder, step)}: not a checkpoint that this run wrote; it is now called {moved.name}")
    return checkpoint_path(folder, step)


def replace_model(checkpoint: Path, model: Saved, changes: Mapping[str, Any], dtype: Dtype = "float32") -> None:
    """Replace a checkpoint's main model by another of the same kind, and update its state by ``changes``.

    If the process is killed meanwhile, the checkpoint has its old content or the new, perhaps only after ``recover``.
    Raises DiskError if it cannot be written.
    """
    manifest = read_manifest(checkpoint)
    step, files = manifest.step, [Path(name) for name in manifest.sha256]
    needed_bytes = sum((checkpoint / file).stat().st_size for file in files)
    with _partial(checkpoint.parent, step, needed_bytes) as partial:
        for file in files:
            (partial / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(checkpoint / file, partial / file)
        model.save(partial, dtype, exact=True)
        write_state(partial, {**load_state(checkpoint), **changes})
        _complete(partial, step)
        publish(partial, step)


@contextmanager
def _partial(folder: Path, step: int, needed_bytes: int | None) -> Iterator[Path]:
    """The folder in which the checkpoint of ``step`` is made; if that fails it is removed, and its space comes back."""
    partial = partial_path(folder, step)
    with named_write_errors(checkpoint_path(folder, step), "this checkpoint", needed_bytes):
        try:
            if partial.exists():
                # First of all: half removed, it must not look complete.
                (partial / MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(partial)
            yield partial
        except BaseException:
            # Once it is listed, it only lacks its name, which a resumed run gives it.
            if not is_published(partial, step):
                # What cannot be removed now, a resumed run removes.
                shutil.rmtree(partial, ignore_errors=True)
            raise


def _complete(partial: Path, step: int) -> None:
    """Write the manifest of everything in ``partial``, and flush it to disk."""
    files = sorted(p for p in partial.rglob("*") if p.is_file())
    manifest = {"step": step, "sha256": {str(p.relative_to(partial)): sha256(p) for p in files}}
    (partial / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    for file in (*files, partial / MANIFEST, partial, *(p for p in partial.rglob("*") if p.is_dir())):
        flush(file)
