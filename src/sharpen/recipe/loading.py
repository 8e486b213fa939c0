"""Reading and validating recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from sharpen.errors import RecipeError
from sharpen.recipe.schema import Recipe
from sharpen.settings import explain, without_effect


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply ``key.sub=value`` overrides.

    Raises:
        RecipeError: naming the file and the key, with the nearest known key where one is unknown.
    """
    path = Path(path)
    if not path.is_file():
        raise RecipeError(f"{path}: no such recipe")
    try:
        loaded = OmegaConf.load(path)
        if not isinstance(loaded, DictConfig):
            raise RecipeError(f"{path}: a recipe is a mapping of settings, this is a list")
        # Expand the short form so that overrides have a section: `method: grpo` with method.group_size=4.
        for section, named in (("method", "name"), ("model", "path")):
            if isinstance(loaded.get(section), str):
                loaded[section] = {named: loaded[section]}
        tree = OmegaConf.to_container(OmegaConf.merge(loaded, OmegaConf.from_dotlist(list(overrides))), resolve=True)
    except (OmegaConfBaseException, YAMLError, OSError) as error:
        raise RecipeError(f"{path}: {error}") from error
    assert isinstance(tree, dict)
    return make_recipe({str(k): v for k, v in tree.items()}, where=str(path))


def derived_recipe(tree: Mapping[str, Any], where: str) -> Recipe:
    """A recipe made from another by changes, after which some of its settings have no effect: these get their defaults.

    Raises as ``make_recipe`` does.
    """
    tree = deepcopy(dict(tree))
    while True:
        try:
            return Recipe.model_validate(tree)
        except ValidationError as error:
            idle = without_effect(error)
            if not idle:
                return make_recipe(tree, where)
        # Each pass takes a setting away, as what has its default is not refused; the inner before a whole section.
        for *sections, name in sorted(idle, key=len, reverse=True):
            del reduce(getitem, sections, tree)[name]


def make_recipe(tree: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Validate a tree of settings; raises as ``load_recipe`` does."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError("\n".join(f"{where}: {problem}" for problem in explain(error, Recipe))) from error
