"""Lists and numbers in rows whose values are all texts, as those of a CSV table."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from sharpen.data.rows import Rows
from sharpen.errors import DataError
from sharpen.types import Reads

_LISTS: Mapping[Reads, tuple[str, ...]] = {
    "prompts": ("messages", "conversations"),
    "demonstrations": ("messages", "conversations"),
    "preferences": ("messages", "conversations", "completions", "scores", "ranks"),
    "steps": ("completions", "steps", "labels", "positions"),
}
"""Columns that cannot hold a text."""
_NUMBERS: Mapping[Reads, tuple[str, ...]] = {"preferences": ("margin",)}


def typed(rows: Rows, reads: Reads) -> Rows:
    """The rows with numbers and lists, written as JSON, in the columns in which a method reads these.

    Every other value stays a text. Raises DataError for a text that is none of these.
    """
    if not rows.all_text:
        return rows
    made: dict[str, Callable[[str, str], Any]] = {
        **dict.fromkeys((column for column in _LISTS[reads] if column in rows.columns), _list),
        **dict.fromkeys((column for column in _NUMBERS.get(reads, ()) if column in rows.columns), _number),
    }
    if not made:
        return rows
    data = [
        {
            column: made[column](text, f"{rows.where(index)}: column `{column}`") if column in made else text
            for column, text in row.items()
        }
        for index, row in enumerate(rows)
    ]
    return replace(rows, data=data)


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise DataError(f"{what} must be a number, not {text[:60]!r}") from error


def _list(text: str, what: str) -> list[Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        hint = "; it is written as Python writes it" if "'" in text and text.startswith("[") else ""
        raise DataError(
            f"{what} must be a list written as JSON, not {text[:60]!r}{hint}. Lists are better kept in a .jsonl or "
            ".parquet file"
        ) from error
    if not isinstance(found, list):
        raise DataError(f"{what} must be a list written as JSON, not {text[:60]!r}")
    return found
