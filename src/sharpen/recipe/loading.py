"""Reading and validating recipes."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any, TypeVar

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ValidationError

from sharpen.errors import RecipeError
from sharpen.recipe.compare import differences
from sharpen.recipe.schema import Recipe
from sharpen.recipe.written import check_yaml, in_one_line, recipe_text
from sharpen.settings import Settings, explain, without_effect
from sharpen.system.shown import shown

Section = TypeVar("Section", bound=Settings)

NOTHING: Mapping[str, Any] = {}


def load_recipe(
    path: str | Path,
    overrides: Sequence[str] = (),
    given: Mapping[str, Any] = NOTHING,
    *,
    say: Callable[[str], None] | None = None,
) -> Recipe:
    """Read a recipe and apply ``key.sub=value`` overrides.

    A setting of the file that only the overrides leave without effect, as ``evaluation.every=0`` does, gets its
    default, and ``say`` is told. One that has none in the file itself is refused, as is one of the overrides.

    ``given`` are settings that were Python objects when the recipe was saved, by their paths such as ``data.train``.

    Raises:
        RecipeError: naming the file and the key, with the nearest known key where one is unknown; or naming a setting
            of ``given`` that is not what the recipe was saved with.
    """
    tree = read_tree(path, overrides)
    recorded = {name: _set(tree, name, value) for name, value in given.items()}
    recipe = _overridden(tree, path, overrides, say) if overrides else make_recipe(tree, where=str(path))
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


def _overridden(
    tree: dict[str, Any], path: str | Path, overrides: Sequence[str], say: Callable[[str], None] | None
) -> Recipe:
    file = read_tree(path)
    # The command line may give what the file leaves out altogether, such as `run`.
    whole = {**tree, **file}
    kept = {*_idle_paths(whole), *(tuple(one.partition("=")[0].split(".")) for one in overrides)}
    recipe, dropped = _without_idle(tree, str(path), kept)
    if dropped and say is not None:
        names = ", ".join(sorted(".".join(path) for path in dropped))
        has = "has its default, as it has" if len(dropped) == 1 else "have their defaults, as they have"
        say(f"{names} of {path} {has} no effect with {' '.join(overrides)}")
    return recipe


def _idle_paths(tree: Mapping[str, Any]) -> list[tuple[str, ...]]:
    try:
        Recipe.model_validate(tree)
    except ValidationError as error:
        return without_effect(error)
    return []


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
    text = recipe_text(path)
    if not isinstance(check_yaml(text, str(path)), yaml.MappingNode | None):
        raise RecipeError(f"{path}: a recipe is a mapping of settings, such as `method: grpo`, and this is none")
    _check_overrides(overrides, str(path))
    try:
        loaded: Any = OmegaConf.create(text)
        # Expand the short form so that overrides have a section: `method: grpo` with method.group_size=4.
        for section, named in (("method", "name"), ("model", "path")):
            if isinstance(loaded.get(section), str):
                loaded[section] = {named: loaded[section]}
        tree = OmegaConf.to_container(_merged(loaded, overrides, str(path)), resolve=True)
    except OmegaConfBaseException as error:
        reason = str(error).partition("\n")[0]
        raise RecipeError(f"{path}: {f'`{error.full_key}`: ' if error.full_key else ''}{reason}") from error
    except yaml.YAMLError as error:
        raise RecipeError(f"{path}: not YAML: {in_one_line(error)}") from error
    # Python makes no integer of 5,000 digits.
    except ValueError as error:
        raise RecipeError(f"{path}: {error}") from error
    assert isinstance(tree, dict)
    _check_values(tree, str(path))
    return {str(k): v for k, v in tree.items()}


def _merged(loaded: Any, overrides: Sequence[str], where: str) -> Any:
    for override in overrides:
        try:
            loaded = OmegaConf.merge(loaded, OmegaConf.from_dotlist([override]))
        # What OmegaConf raises for keys such as `[` and for a list in place of a section.
        except (TypeError, IndexError) as error:
            raise RecipeError(f"{where}: {override}: this cannot be set: {error}") from error
    return loaded


def _check_overrides(overrides: Sequence[str], where: str) -> None:
    given = set()
    for override in overrides:
        key, equals, value = override.partition("=")
        if not key.strip() or not equals:
            raise RecipeError(f"{where}: {override!r}: settings are overridden as KEY=VALUE, such as training.steps=50")
        if key in given:
            raise RecipeError(f"{where}: {override}: `{key}` is given twice")
        given.add(key)
        check_yaml(value, f"{where}: {key}")


def _check_values(value: Any, where: str, path: str = "") -> None:
    """Raises RecipeError for what no setting can be, but YAML or the command line can write."""
    if isinstance(value, dict):
        for key, inner in value.items():
            _check_values(inner, where, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            _check_values(inner, where, f"{path}[{place}]")
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise RecipeError(f"{where}: `{path}`: the text is not valid Unicode: {shown(value)}") from error
    elif not isinstance(value, bool | int | float | datetime.date | None) or isinstance(value, datetime.datetime):
        raise RecipeError(f"{where}: `{path}`: a {type(value).__name__} is no value of a setting: {shown(value)}")


def derived_recipe(tree: Mapping[str, Any], where: str) -> Recipe:
    """A recipe made from another by changes, after which some of its settings have no effect: these get their defaults.

    Raises as ``make_recipe`` does.
    """
    return _without_idle(tree, where, set())[0]


def _without_idle(
    tree: Mapping[str, Any], where: str, kept: Collection[tuple[str, ...]]
) -> tuple[Recipe, set[tuple[str, ...]]]:
    """The recipe without the settings that have no effect, and their paths; one in ``kept``, or within it or around
    it, is refused."""
    left = _copied(tree)
    dropped: set[tuple[str, ...]] = set()
    while idle := _idle_paths(left):
        if any(a[: len(b)] == b[: len(a)] for a in idle for b in kept):
            break
        # Each pass takes a setting away, as what has its default is not refused; the inner before a whole section.
        for path in sorted(idle, key=len, reverse=True):
            section = reduce(lambda inner, part: inner[part] if isinstance(inner, dict) else None, path[:-1], left)
            if not isinstance(section, dict):
                # Of a method that is a Python object.
                return make_recipe(left, where), dropped
            del section[path[-1]]
            dropped.add(path)
    return make_recipe(left, where), dropped


def _copied(tree: Mapping[str, Any]) -> dict[str, Any]:
    """The tree with its sections copied, and not what they hold, which may be rows."""
    return {name: _copied(value) if type(value) is dict else value for name, value in tree.items()}


def make_recipe(tree: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Validate a tree of settings; raises as ``load_recipe`` does."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError("\n".join(f"{where}: {problem}" for problem in explain(error, Recipe))) from error
