"""Lists and numbers in rows whose values are all texts, as those of a CSV table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sharpen.data.json_text import parsed
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
    return rows.converted(
        lambda row, index: {
            column: made[column](text, f"{rows.where(index)}: column `{column}`") if column in made else text
            for column, text in row.items()
        }
    )


def _number(text: str, what: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise DataError(f"{what} must be a number, not {text[:60]!r}") from error


def _list(text: str, what: str) -> list[Any]:
    try:
        found = parsed(text)
    except ValueError as error:
        hint = "; it is written as Python writes it" if "'" in text and text.startswith("[") else ""
        raise DataError(
            f"{what} must be a list written as JSON, not {text[:60]!r}{hint}. Lists are better kept in a .jsonl or "
            ".parquet file"
        ) from error
    if not isinstance(found, list):
        raise DataError(f"{what} must be a list written as JSON, not {text[:60]!r}")
    return found
