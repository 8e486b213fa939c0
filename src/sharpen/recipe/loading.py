"""Reading a recipe, and saying what is wrong with one."""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Union, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ValidationError
from yaml import YAMLError

from sharpen.errors import RecipeError
from sharpen.recipe.schema import Recipe
from sharpen.suggest import did_you_mean


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
        # So that an override of one of their settings finds a section to go to.
        for section, named in (("method", "name"), ("model", "path")):
            if isinstance(loaded.get(section), str):
                loaded[section] = {named: loaded[section]}
        tree = OmegaConf.to_container(OmegaConf.merge(loaded, OmegaConf.from_dotlist(list(overrides))), resolve=True)
    except (OmegaConfBaseException, YAMLError, OSError) as error:
        raise RecipeError(f"{path}: {error}") from error
    assert isinstance(tree, dict)
    return make_recipe({str(k): v for k, v in tree.items()}, where=str(path))


def make_recipe(tree: Mapping[str, Any], where: str = "recipe") -> Recipe:
    """Validate a tree of settings; see ``load_recipe``."""
    try:
        return Recipe.model_validate(tree)
    except ValidationError as error:
        raise RecipeError("\n".join(_explain(where, dict(e), Recipe) for e in error.errors())) from error


def _explain(where: str, error: Mapping[str, Any], root: type[BaseModel]) -> str:
    path = [str(part) for part in error["loc"]]
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown setting `{'.'.join(path)}`.{_suggest(path, root)}"
    message = str(error["msg"]).removeprefix("Value error, ")
    key = f"`{'.'.join(path)}`: " if path else ""
    given = "" if error["type"] in ("missing", "value_error") else f" (given: {error['input']!r})"
    return f"{where}: {key}{message}{given}"


def _suggest(path: Sequence[str], root: type[BaseModel]) -> str:
    model: type[BaseModel] = root
    for part in path[:-1]:
        inner = _model_of(model.model_fields[part].annotation) if part in model.model_fields else None
        if inner is None:
            return ""
        model = inner
    known = list(model.model_fields)
    hint = did_you_mean(path[-1], known, prefix="".join(f"{part}." for part in path[:-1]))
    return hint or f" Known here: {', '.join(known)}"


def _model_of(annotation: Any) -> type[BaseModel] | None:
    if get_origin(annotation) in (Union, types.UnionType):
        return next((m for a in get_args(annotation) if (m := _model_of(a)) is not None), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None
