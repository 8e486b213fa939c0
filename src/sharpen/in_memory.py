"""Settings given as Python objects: what a saved recipe writes for them, and where they are to be given again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from sharpen.registry import own_name
from sharpen.settings import Settings, not_blank

IN_MEMORY = "<given in Python>"
"""Saved in a recipe in place of an object that no name gives again."""


ENTRY = ("name", "weight", "gate", "call")
"""What an entry of a list says beside the settings of its class, which cannot have fields of these names."""

_NAMES = ("name", "function")
"""The settings of an entry that may name a class or function; any other is handed on as it is written."""


def saved(setting: Any, name_of: Callable[[object], str | None] = own_name) -> Any:
    """A setting in serialisable form: what ``name_of`` names becomes its name, any other object `IN_MEMORY`.

    An object of settings is a mapping of these and, if its class has a ``name``, as verifiers have, of its class;
    `IN_MEMORY` if its class would not make an equal object of that mapping.
    """
    if isinstance(setting, Mapping):
        entry = {str(key): saved(value, name_of if key in _NAMES else _unnamed) for key, value in setting.items()}
        named = entry.pop("name", None)
        return {**(named if isinstance(named, dict) else {} if named is None else {"name": named}), **entry}
    if isinstance(setting, list | tuple):
        return [saved(value, name_of) for value in setting]
    if isinstance(setting, os.PathLike):
        return os.fspath(setting)
    if setting is None or isinstance(setting, str | bool | int | float):
        return setting
    if not isinstance(setting, Settings):
        return name_of(setting) or IN_MEMORY
    fields = fields_of(setting)
    if fields is None or not isinstance(getattr(type(setting), "name", None), str):
        return IN_MEMORY if fields is None else fields
    kind = name_of(type(setting))
    return IN_MEMORY if kind is None or any(key in ENTRY for key in fields) else {"name": kind, **fields}


def saved_as_data(setting: Any) -> Any:
    """A setting in serialisable form, in which no name stands for an object: nothing would look it up."""
    return saved(setting, _unnamed)


def _unnamed(thing: object) -> None:
    return None


def fields_of(settings: Settings) -> dict[str, Any] | None:
    """The fields of an object in serialisable form; None if its class does not make an equal object of them."""
    try:
        fields = settings.model_dump(mode="json", by_alias=True)
        if "name" not in type(settings).model_fields:
            # A method says what it is.
            fields.pop("name", None)
        return fields if type(settings)(**fields) == settings else None
    # A user's class validates and compares as it likes, and may hold what cannot be serialised.
    except Exception:  # noqa: BLE001
        return None


def _saved_rows(rows: Any) -> Any:
    return rows if rows is None or isinstance(rows, str) else IN_MEMORY


def _part(value: Any) -> Any:
    if isinstance(value, bool | int | float | Mapping | list | tuple):
        raise ValueError("write a name, or in Python give the object itself")
    return _text(value)


def _rows(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        raise ValueError("write the name of a file or data set, or in Python give the rows themselves")
    return _text(value)


def _text(value: Any) -> Any:
    return not_blank(os.fspath(value) if isinstance(value, os.PathLike) else value)


_SCHEMA = WithJsonSchema({"type": "string", "minLength": 1})

FreeSettings = Annotated[dict[str, Any], PlainSerializer(saved_as_data)]
"""Settings of a user's own part, under names of its own."""

OF_REWARDS = WithJsonSchema({"anyOf": [{"type": kind} for kind in ("string", "object", "array", "null")]})
"""What specifies a reward in a recipe: a name, a mapping or a list of these."""

NamedPart = Annotated[Any, BeforeValidator(_part), PlainSerializer(saved), _SCHEMA]
"""A class, function or object: in a recipe by its name."""

NamedRows = Annotated[Any, BeforeValidator(_rows), PlainSerializer(_saved_rows), _SCHEMA]
"""Rows of data: in a recipe the name of a file or data set."""


def in_memory(recorded: Any, setting: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The path, such as ``reward[1].name``, of each part of ``setting`` that is recorded as `IN_MEMORY`, and the part.

    ``recorded`` is the setting in serialisable form, and ``name`` what paths begin with.
    """
    named = recorded.get("name") if isinstance(recorded, Mapping) and not isinstance(setting, Mapping) else recorded
    if named == IN_MEMORY:
        yield name, setting
    elif isinstance(recorded, Mapping) and isinstance(setting, Mapping):
        for key, value in recorded.items():
            # A dot within a user's own key is no step of a path.
            inner = f"{name}[{key!r}]" if "." in key or "[" in key else f"{name}.{key}" if name else key
            yield from in_memory(value, setting.get(key), inner)
    elif isinstance(recorded, list) and isinstance(setting, list | tuple):
        for place, value in enumerate(recorded):
            yield from in_memory(value, setting[place], f"{name}[{place}]")
