"""What a person may call a model: a run, a folder, a hub id."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sharpen.config import Recipe
from sharpen.errors import CheckpointError
from sharpen.training.checkpoint import sound_checkpoints
from sharpen.training.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class NamedModel:
    """A folder or hub id to load from and, where a run was named, its recipe. ``notes`` say what was chosen."""

    path: str
    recipe: Recipe | None = None
    notes: tuple[str, ...] = ()


def find_model(name: str) -> NamedModel:
    """A run's folder stands for its latest sound checkpoint; anything else is left to the loader.

    Raises CheckpointError for a run without one.
    """
    path = Path(name).expanduser()
    if not (path / "recipe.yaml").is_file():
        return NamedModel(name)
    folder, recipe = RunFolder.open(path)
    notes: list[str] = []
    for checkpoint, problem in sound_checkpoints(folder.checkpoints):
        if problem is None:
            return NamedModel(str(checkpoint), recipe, (*notes, f"model: {checkpoint}"))
        notes.append(f"passed over a checkpoint: {problem}")
    raise CheckpointError("\n".join([f"{path}: this run has no sound checkpoint yet", *notes]))
