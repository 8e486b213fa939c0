"""Numbers in columns."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

from sharpen.data.rows import Rows
from sharpen.errors import DataError


def number_of(rows: Rows, index: int, column: str) -> float:
    """The finite number in a column of one row."""
    return _finite(_present(rows, index, column), f"{rows.where(index)}: column `{column}`")


def numbers_of(rows: Rows, index: int, column: str) -> tuple[float, ...]:
    """The finite numbers in the list that a column of one row holds."""
    values = _present(rows, index, column)
    where = f"{rows.where(index)}: column `{column}`"
    if not isinstance(values, list):
        raise DataError(f"{where} must be a list of numbers, not {type(values).__name__} ({repr(values)[:60]})")
    return tuple(_finite(value, f"{where}, entry {i}") for i, value in enumerate(values, start=1))


def _present(rows: Rows, index: int, column: str) -> Any:
    row = rows[index]
    if column not in row:
        raise DataError(f"{rows.where(index)}: no column `{column}`, which other rows have; add it")
    return row[column]


def _finite(value: Any, what: str) -> float:
    if not isinstance(value, Real):
        raise DataError(f"{what} must be a number, not {type(value).__name__} ({repr(value)[:60]})")
    if not math.isfinite(value):
        raise DataError(f"{what} is {value}; it must be a finite number")
    return float(value)
