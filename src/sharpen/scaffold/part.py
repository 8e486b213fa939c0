"""The rows that are looked at, with checks that name the row."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sharpen.data.columns import check_messages
from sharpen.data.rows import Rows
from sharpen.errors import DataError
from sharpen.rewards.checking.cases import spaced

MOST_ROWS = 10_000
"""More rows than these are not looked at; those that are, are evenly spaced."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some or all rows of a source; ``places`` are their names in errors."""

    rows: Rows
    places: Sequence[str]

    @property
    def columns(self) -> tuple[str, ...]:
        return self.rows.columns

    def values(self, column: str) -> list[Any]:
        """The column's values. Raises DataError for a row without one."""
        values = []
        for place, row in zip(self.places, self.rows, strict=True):
            if _is_blank(row.get(column)):
                raise DataError(f"{place}: no value in column `{column}`, which other rows have; complete or remove it")
            values.append(row[column])
        return values

    def is_complete(self, column: str) -> bool:
        """Whether every row has a value in a column."""
        return not any(_is_blank(row.get(column)) for row in self.rows)

    def is_conversational(self, column: str) -> bool:
        """Whether a column holds messages in every row; False if a text in every row.

        Raises DataError for a row with neither, and if rows differ.
        """
        values = self.values(column)
        for place, value in zip(self.places, values, strict=True):
            if not isinstance(value, str | list):
                raise DataError(
                    f"{place}: column `{column}` must be a text or a list of messages, not {type(value).__name__} "
                    f"({repr(value)[:60]})"
                )
            if isinstance(value, list) is not isinstance(values[0], list):
                kinds = {True: "messages", False: "a text"}
                raise DataError(
                    f"{place}: column `{column}` holds {kinds[isinstance(value, list)]}, but "
                    f"{kinds[isinstance(values[0], list)]} in {self.places[0]}: give all rows one form"
                )
        return isinstance(values[0], list)

    def conversations(self, column: str) -> list[list[Mapping[str, Any]]]:
        """The conversations of a column. Raises DataError for a row with anything else."""
        if not self.is_conversational(column):
            raise DataError(f"{self.places[0]}: column `{column}` must be a list of messages, not a text")
        conversations = self.values(column)
        for place, messages in zip(self.places, conversations, strict=True):
            check_messages(messages, f"{place}:", f"column `{column}`")
        return conversations


def _is_blank(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value.strip())


def part_of(rows: Rows) -> Part:
    return Part(*spaced(rows, MOST_ROWS))
