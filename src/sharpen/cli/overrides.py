"""The recipe of a command, with the settings that are given beside it."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from sharpen.recipe.loading import load_recipe
from sharpen.recipe.schema import Recipe
from sharpen.system.printable import printable


def recipe_with(path: str, overrides: Sequence[str]) -> Recipe:
    """Raises as `load_recipe` does; settings that the overrides leave without effect are named on stderr."""
    return load_recipe(path, overrides, say=lambda text: typer.echo(printable(text), err=True))
