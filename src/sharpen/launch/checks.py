"""What can be known of a run's end before its folder is written."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from sharpen.errors import DiskError, RecipeError
from sharpen.launch.held_out import measure_names
from sharpen.launch.inputs import Inputs
from sharpen.models.device import resolve_device
from sharpen.recipe.schema import Recipe
from sharpen.runs.named_loggers import LoggerSpec, find_loggers
from sharpen.system.files import size_text
from sharpen.system.shown import cut


def check_before_writing(recipe: Recipe, inputs: Inputs, loggers: Sequence[LoggerSpec] = ()) -> None:
    """Check what would otherwise fail when the run is under way. To be called before models are loaded.

    Raises:
        ModelError: there is no such device.
        RecipeError: `checkpoint.best` is not among the measures, or a logger cannot be used.
    """
    resolve_device(recipe.model.device)
    find_loggers(recipe.log.loggers)
    find_loggers(loggers, "loggers")
    best = recipe.checkpoint.best
    if best is not None and inputs.held_out is not None:
        measured = measure_names(inputs.held_out, recipe.method, recipe.evaluation)
        if best not in measured:
            raise RecipeError(f"checkpoint.best: {measured.unknown(best)}")


def check_folder(folder: Path) -> None:
    """Raises RecipeError if a run's folder would hold other things: the working directory, or the user's home.

    Raises DiskError for a name that no file can have.
    """
    try:
        folder.exists()
    # Of a name that is too long, before anything else asks for it.
    except OSError as error:
        raise DiskError(f"run: {cut(str(folder), 300)} cannot be written: {error.strerror}") from error
    for used, what in ((Path.cwd(), "the working directory"), (Path.home(), "your home")):
        # `resolve` raises an error for a link to itself.
        if used.is_relative_to(os.path.realpath(folder)):
            raise RecipeError(f"run: {folder} is {what}, or holds it: name a folder of its own, such as runs/mine")


def check_space(folder: Path, checkpoint_bytes: int) -> None:
    """Raises DiskError if the disk of a run's folder has no room for one checkpoint."""
    # A dry run does not make the folder.
    disk = shutil.disk_usage(next(path for path in (folder, *folder.absolute().parents) if path.exists()))
    # Some network file systems do not say how large they are.
    if disk.total and disk.free < checkpoint_bytes:
        raise DiskError(
            f"run: {folder}: a checkpoint takes {size_text(checkpoint_bytes)}, and its disk has "
            f"{size_text(disk.free)} free"
        )
