"""A run's recipe as plain values: read without the user's code, and never taken for more than text."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sharpen.errors import DataError
from sharpen.system.shown import shown

MOST_BYTES = 2 * 2**20
"""A recipe that a run wrote is a few thousand bytes."""


def read_recipe(path: Path) -> dict[str, Any]:
    """The settings in ``recipe.yaml``. Raises DataError if it is not a recipe that a run wrote."""
    if path.stat().st_size > MOST_BYTES:
        raise DataError(f"{path}: larger than {MOST_BYTES:,} bytes, so not a recipe that a run wrote")
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        tree = yaml.load(text, Loader=_PlainLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a recipe that a run wrote: {error}") from error
    if not isinstance(tree, dict):
        raise DataError(f"{path}: not a recipe, but {shown(tree)}")
    return tree


class _PlainLoader(yaml.SafeLoader):
    """A run writes no anchors: with them a short text could stand for a very large value."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it holds an alias (*name)")
        return super().compose_node(parent, index)


def at(tree: Mapping[str, Any], path: str) -> Any:
    """The setting at a path such as ``method.name``; None if it is not there."""
    found: Any = tree
    for key in path.split("."):
        if not isinstance(found, Mapping) or key not in found:
            return None
        found = found[key]
    return found


def named(entry: Any) -> str:
    """What a setting that names something is called: its name, or its path."""
    if isinstance(entry, Mapping):
        return str(entry.get("name") or entry.get("path") or entry.get("task") or "")
    if isinstance(entry, list):
        return ", ".join(filter(None, map(named, entry)))
    return "" if entry is None else str(entry)
