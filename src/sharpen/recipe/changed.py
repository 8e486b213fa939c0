"""The settings of a recipe that differ from their defaults."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_core import to_jsonable_python

from sharpen.recipe.schema import Recipe
from sharpen.settings import Settings


def changed_settings(recipe: Recipe) -> dict[str, Any]:
    """By dotted name, with the values as the recipe is saved. A method's defaults are its own."""
    saved = recipe.model_dump(mode="json")["method"]
    # A method is known by its name, which is no field of it.
    name = saved["name"] if isinstance(saved, dict) else recipe.method.name
    return {"method.name": name, **dict(_changed(recipe, None, ""))}


def _changed(settings: Settings, default: Settings | None, prefix: str) -> Iterator[tuple[str, Any]]:
    """Those of a section, compared with ``default``, or with the defaults of its fields."""
    saved = settings.model_dump(mode="json")
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        usual = field.get_default(call_default_factory=True) if default is None else getattr(default, name)
        if isinstance(value, Settings):
            yield from _changed(value, usual if type(usual) is type(value) else None, f"{prefix}{name}.")
        elif field.is_required() or saved[name] != to_jsonable_python(usual):
            yield f"{prefix}{name}", saved[name]
