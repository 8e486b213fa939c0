"""What can be known of a run's end before its folder is written."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from sharpen.errors import RecipeError
from sharpen.launch.held_out import measure_names
from sharpen.launch.inputs import Inputs
from sharpen.recipe.schema import Recipe
from sharpen.runs.named_loggers import LoggerSpec, find_loggers
from sharpen.system.memory import GIB


def check_before_writing(recipe: Recipe, inputs: Inputs, loggers: Sequence[LoggerSpec] = ()) -> None:
    """Check what would otherwise fail when the run is under way. To be called before models are loaded.

    Raises:
        RecipeError: `checkpoint.best` is not among the measures, or a logger cannot be used.
    """
    find_loggers(recipe.log.loggers)
    find_loggers(loggers, "loggers")
    best = recipe.checkpoint.best
    if best is not None and inputs.held_out is not None:
        measured = measure_names(inputs.held_out, recipe.method, recipe.evaluation)
        if best not in measured:
            raise RecipeError(f"checkpoint.best: {measured.unknown(best)}")


def check_space(folder: Path, checkpoint_bytes: int) -> None:
    """Raises RecipeError if the disk of a run's folder has no room for one checkpoint."""
    # A dry run does not make the folder.
    disk = shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists()))
    # Some network file systems do not say how large they are.
    if disk.total and disk.free < checkpoint_bytes:
        raise RecipeError(
            f"run: {folder}: a checkpoint takes {checkpoint_bytes / GIB:.2f} GiB, and its disk has "
            f"{disk.free / GIB:.2f} GiB free"
        )
