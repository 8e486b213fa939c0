"""Placeholders, in a saved recipe, for rows and rewards given as Python objects."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from sharpen.settings import Settings

IN_MEMORY = "<given in Python>"
"""Saved in a recipe in place of rows or a reward given as Python objects."""


def recorded(setting: Any) -> Any:
    """A setting in serialisable form: functions and other objects become `IN_MEMORY`."""
    if isinstance(setting, Settings):
        return setting.model_dump(mode="json")
    if isinstance(setting, Mapping):
        return {str(key): recorded(value) for key, value in setting.items()}
    if isinstance(setting, list | tuple):
        return [recorded(value) for value in setting]
    plain = setting is None or isinstance(setting, str | bool | int | float)
    return setting if plain else IN_MEMORY


def in_memory(setting: Any, name: str = "") -> Iterator[str]:
    """Paths of each `IN_MEMORY` in the setting ``name``, such as ``reward[1].name``."""
    if isinstance(setting, Mapping):
        for key, value in setting.items():
            yield from in_memory(value, f"{name}.{key}")
    elif isinstance(setting, list | tuple):
        for place, value in enumerate(setting):
            yield from in_memory(value, f"{name}[{place}]")
    elif setting == IN_MEMORY:
        yield name


def paths_as_text(setting: Any) -> Any:
    """The setting with path objects as strings, as in a recipe."""
    if isinstance(setting, os.PathLike):
        return os.fspath(setting)
    if isinstance(setting, Mapping):
        return {key: paths_as_text(value) for key, value in setting.items()}
    if isinstance(setting, list | tuple):
        return [paths_as_text(value) for value in setting]
    return setting
