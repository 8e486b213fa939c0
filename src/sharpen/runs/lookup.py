"""Finding a model by what a user names: a run, one of its checkpoints, a folder, or a hub id."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sharpen.errors import CheckpointError
from sharpen.runs.checkpoint import latest_sound
from sharpen.runs.folder import RunFolder
from sharpen.runs.seeds import SeedsFolder


@dataclass(frozen=True, slots=True)
class NamedModel:
    """The folder or hub id to load from and, for a checkpoint, its run. ``notes`` say which checkpoint was chosen."""

    path: str
    run: RunFolder | None = None
    notes: tuple[str, ...] = ()


def find_model(name: str) -> NamedModel:
    """A run's folder stands for its latest sound checkpoint; any other name is left to the loader.

    Raises CheckpointError for a run without a sound checkpoint, and for a folder of runs with several seeds.
    """
    path = Path(name).expanduser()
    if (seeds := SeedsFolder(path)).exists:
        raise CheckpointError(seeds.refusal())
    run = RunFolder(path)
    if not run.recipe.is_file():
        return NamedModel(name, _run_of(path))
    checkpoint, damaged = latest_sound(run.checkpoints)
    notes = [f"skipped a checkpoint: {problem}" for problem in damaged.values()]
    if checkpoint is None:
        raise CheckpointError("\n".join([f"{path}: this run has no sound checkpoint yet", *notes]))
    return NamedModel(str(checkpoint), run, (*notes, f"model: {checkpoint}"))


def _run_of(checkpoint: Path) -> RunFolder | None:
    """The run that a folder is a checkpoint of, if it is one."""
    folder = checkpoint.resolve().parent
    run = RunFolder(folder.parent)
    return run if folder.name == run.checkpoints.name and checkpoint.is_dir() and run.recipe.is_file() else None
