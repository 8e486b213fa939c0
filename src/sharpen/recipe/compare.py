"""Nested settings by their paths: what differs between two saved recipes, and from the defaults."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pydantic_core import to_jsonable_python

from sharpen.in_memory import IN_MEMORY
from sharpen.recipe.schema import Recipe
from sharpen.settings import Settings


def flattened(tree: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, Any]]:
    """Each setting by its dotted path; an empty mapping is a setting."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from flattened(value, f"{within}{name}.")
        else:
            yield f"{within}{name}", value


def differences(before: Any, now: Any, *, added: bool = True, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The path, such as ``reward[1].name``, the old and the new value of each setting that differs, as saved.

    What was recorded as `IN_MEMORY` is the same as anything that is given now. A setting that is missing is None;
    without ``added``, one that was missing before is left out.
    """
    if before == IN_MEMORY and now is not None:
        return
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in {**before, **now} if added else before:
            inner = f"{path}.{key}" if path else str(key)
            yield from differences(before.get(key), now.get(key), added=added, path=inner)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for place, (old, new) in enumerate(zip(before, now, strict=True)):
            yield from differences(old, new, added=added, path=f"{path}[{place}]")
    elif before != now:
        yield path, before, now


def changed_settings(recipe: Recipe) -> dict[str, Any]:
    """Those that differ from their defaults, by dotted path and as saved. A method's defaults are its own."""
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
        elif isinstance(value, dict) and value and all(isinstance(section, Settings) for section in value.values()):
            for key, section in value.items():
                yield from _changed(section, None, f"{prefix}{name}.{key}.")
        elif field.is_required() or saved[name] != to_jsonable_python(usual):
            yield f"{prefix}{name}", saved[name]
