"""Dotted paths into the objects of a row, such as ``reward_model.ground_truth``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def values_at(row: Mapping[str, Any], path: str) -> Iterator[Any]:
    """The values that a path leads to, the one to use first; none if it leads nowhere.

    A dot may be part of a key: the longest key comes first.
    """
    if path in row:
        yield row[path]
    parts = path.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        inner = row.get(".".join(parts[:cut]))
        if isinstance(inner, Mapping):
            yield from values_at(inner, ".".join(parts[cut:]))


def paths_into(row: Mapping[str, Any]) -> Iterator[str]:
    """The paths to all that is within the objects of a row."""
    for column, value in row.items():
        if isinstance(value, Mapping):
            yield from (f"{column}.{path}" for path in (*value, *paths_into(value)))
