"""Finding a model by what a user names: a run, one of its checkpoints, a folder, or a hub id."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sharpen.errors import CheckpointError
from sharpen.runs.checkpoint_check import Uses, damage, is_checkpoint, step_in_name
from sharpen.runs.checkpoint_list import latest_sound, problem, unlisted
from sharpen.runs.folder import RunFolder
from sharpen.runs.seeds import SeedsFolder


@dataclass(frozen=True, slots=True)
class NamedModel:
    """The folder or hub id to load from and, for a checkpoint, its run. ``notes`` say which checkpoint was chosen."""

    path: str
    run: RunFolder | None = None
    notes: tuple[str, ...] = ()


def find_model(name: str, uses: Uses = "model") -> NamedModel:
    """A run's folder stands for its latest sound checkpoint; any other name is left to the loader.

    Of a checkpoint, also one that is named by its own folder, or by that of a model in it such as ``critic``, the files
    that ``uses`` says are checked.

    Raises CheckpointError for a run without a sound checkpoint, for a checkpoint that is damaged, and for a folder of
    runs with several seeds.
    """
    try:
        return _found(name, uses)
    except OSError as error:
        raise CheckpointError(f"{error.filename or name}: cannot be read: {error.strerror}") from error


def _found(name: str, uses: Uses) -> NamedModel:
    path = Path(name).expanduser()
    if (seeds := SeedsFolder(path)).exists:
        raise CheckpointError(seeds.refusal())
    run = RunFolder(path)
    if not run.recipe.is_file():
        of = _run_of(path)
        if (damage := _damage(path, of, uses)) is not None:
            raise CheckpointError(damage)
        return NamedModel(name, of)
    checkpoint, damaged = latest_sound(run.checkpoints, uses)
    notes = [not_of_the_run(other) for other in unlisted(run.checkpoints)]
    notes += [f"skipped a checkpoint: {problem}" for problem in damaged.values()]
    if checkpoint is None:
        raise CheckpointError("\n".join([f"{path}: this run has no sound checkpoint yet", *notes]))
    return NamedModel(str(checkpoint), run, (*notes, f"model: {checkpoint}"))


def not_of_the_run(folder: Path) -> str:
    """What is said of a folder among a run's checkpoints that is none of them."""
    return f"{folder}: not a checkpoint that this run wrote; it does not count, and stays as it is"


def _damage(path: Path, run: RunFolder | None, uses: Uses) -> str | None:
    """What is wrong with a checkpoint, or with a model in a subfolder of one; None too for any other folder."""
    if run is not None and (is_checkpoint(path) or step_in_name(path) is not None):
        return problem(path.resolve(), uses)
    if is_checkpoint(path):
        return damage(path, uses)
    return damage(path.parent, uses, part=path.name) if path.is_dir() and is_checkpoint(path.parent) else None


def _run_of(checkpoint: Path) -> RunFolder | None:
    """The run that a folder is a checkpoint of, if it is one."""
    folder = checkpoint.resolve().parent
    run = RunFolder(folder.parent)
    return run if folder.name == run.checkpoints.name and checkpoint.is_dir() and run.recipe.is_file() else None
