"""Rows that are too many to be read whole at the start: how many these are, and which of them are read then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from sharpen.data.rows import Rows

EAGER_ROWS = 20_000
"""Up to this many rows of a source are read, checked and tokenised before the first step; of more rows, this many."""


def is_large(rows: int) -> bool:
    """Whether so many rows are read when they are needed."""
    return rows > EAGER_ROWS


def read_first(rows: Rows, columns: Sequence[str]) -> Rows:
    """What is read before the first step: all rows, or of very many the first half of `EAGER_ROWS`, 45 % of these
    evenly spaced, and the rows with the longest texts in ``columns``, which find what is too long for the context."""
    if not is_large(len(rows)):
        return rows
    first, longest = EAGER_ROWS // 2, EAGER_ROWS // 20
    spaced = np.linspace(first, len(rows) - 1, EAGER_ROWS - first - longest, dtype=np.int64)
    measured = [column for column in columns if column in rows.columns]
    lengths = np.fromiter((_length([row.get(name) for name in measured]) for row in rows), np.int64, len(rows))
    # Stable: of equal lengths the first.
    by_length = np.argsort(-lengths, kind="stable")[:longest]
    return rows.part(np.unique(np.concatenate([np.arange(first), spaced, by_length])).tolist())


def _length(value: Any) -> int:
    """The characters of all texts in a value."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list | tuple):
        return sum(map(_length, value))
    return sum(map(_length, value.values())) if isinstance(value, Mapping) else 0
