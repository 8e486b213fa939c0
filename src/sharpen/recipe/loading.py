"""Reading and validating recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError
from yaml import YAMLError

from sharpen.errors import RecipeError
from sharpen.recipe.compare import differences
from sharpen.recipe.schema import Recipe
from sharpen.settings import Settings, explain, without_effect

Section = TypeVar("Section", bound=Settings)

NOTHING: Mapping[str, Any] = {}


def load_recipe(path: str | Path, overrides: Sequence[str] = (), given: Mapping[str, Any] = NOTHING) -> Recipe:
    """Read a recipe and apply ``key.sub=value`` overrides.

    ``given`` are settings that were Python objects when the recipe was saved, by their paths such as ``data.train``.

    Raises:
        RecipeError: naming the file and the key, with the nearest known key where one is unknown; or naming a setting
            of ``given`` that is not what the recipe was saved with.
    """
    tree = read_tree(path, overrides)
    recorded = {name: _set(tree, name, value) for name, value in given.items()}
    recipe = make_recipe(tree, where=str(path))
    if recorded:
        now = recipe.model_dump(mode="json")
        for name, before in recorded.items():
            saved = reduce(getitem, name.split("."), now)
            if any(differences(before, saved, added=False)):
                raise RecipeError(
                    f"{path}: `{name}` is not what this run was started with, {before}: it is now {saved}"
                )
    return recipe


def load_section(path: Path, kind: type[Section]) -> Section:
    """One section of a saved recipe, whatever else the recipe names: a method may have been given in Python.

    Raises as `load_recipe` does.
    """
    name = next(name for name, field in Recipe.model_fields.items() if field.annotation is kind)
    try:
        return kind.model_validate(read_tree(path).get(name, {}))
    except ValidationError as error:
        raise RecipeError("\n".join(f"{path}: {name}: {problem}" for problem in explain(error, kind))) from error


def _set(tree: dict[str, Any], name: str, value: Any) -> Any:
    """Set a setting by its path, and return what was there."""
    *sections, last = name.split(".")
    section = reduce(lambda inner, part: inner.setdefault(part, {}), sections, tree)
    before = section.get(last)
    section[last] = value
    return before


def read_tree(path: str | Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The settings that a recipe gives, with overrides, before they are validated; raises as `load_recipe` does."""
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
    return {str(k): v for k, v in tree.items()}


def derived_recipe(tree: Mapping[str, Any], where: str) -> Recipe:
    """A recipe made from another by changes, after which some of its settings have no effect: these get their defaults.

    Raises as ``make_recipe`` does.
    """
    left = _copied(tree)
    while True:
        try:
            return Recipe.model_validate(left)
        except ValidationError as error:
            idle = without_effect(error)
            if not idle:
                return make_recipe(left, where)
        # Each pass takes a setting away, as what has its default is not refused; the inner before a whole section.
        for *sections, name in sorted(idle, key=len, reverse=True):
            del reduce(getitem, sections, left)[name]


def _copied(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with its sections copied, and not what they hold, which may be rows."""
    return {name: _copied(value) if type(value) is dict else value for name, value in tree.items()}


def make_recipe(tree: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Validate a tree of settings; raises as ``load_recipe`` does."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError("\n".join(f"{where}: {problem}" for problem in explain(error, Recipe))) from error
