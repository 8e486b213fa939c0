"""Rows of JSON files: an object on each line, or one list of objects."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sharpen.data.json_text import TOO_DEEP, JsonError, decoded, half_a_character, is_too_deep, parsed, row_of_fault
from sharpen.data.large import is_large
from sharpen.data.text_file import FileRows, TextFile
from sharpen.errors import DataError


def read_lines(path: Path) -> tuple[Sequence[Any], Sequence[int], tuple[str, ...]]:
    """The objects of a file, the lines on which they stand, and all their columns.

    Few rows are parsed once. Of many, each is checked now and parsed again when it is needed.

    Raises DataError for a line that is no object of columns.
    """
    file = TextFile(path)
    rows: list[dict[str, Any]] = []
    columns: dict[str, None] = {}
    starts, stops, numbers = array("q"), array("q"), array("q")
    for number, (start, line) in enumerate(file.lines(), start=1):
        text = file.decoded(line, start, number).rstrip("\r\n")
        if not text.strip():
            continue
        row = _row(text, f"{path}:{number}")
        starts.append(start)
        stops.append(start + len(line))
        numbers.append(number)
        if not row.keys() <= columns.keys():
            columns.update(dict.fromkeys(row))
        if is_large(len(numbers)):
            rows.clear()
        else:
            rows.append(row)
    if not is_large(len(numbers)):
        return rows, tuple(numbers), tuple(columns)
    return FileRows(file, starts, stops, parsed), numbers, tuple(columns)


def read_list(path: Path) -> list[Any]:
    """The entries of the list in a file. Raises DataError for one that holds anything else."""
    text = TextFile(path).text()
    try:
        rows = decoded(text)
    except json.JSONDecodeError as error:
        hint = "; if every line is an object, name it .jsonl" if error.msg == "Extra data" else ""
        raise DataError(
            f"{path}:{error.lineno}: not JSON: {error.msg} at character {error.colno} of the line{hint}"
        ) from error
    except JsonError as error:
        row = row_of_fault(text)
        raise DataError(f"{path}{'' if row is None else f', row {row}'}: {error}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: a .json file must hold a list of objects, not {type(rows).__name__}")
    return rows


def refuse_row(row: Any, where: str) -> None:
    """Raises DataError for what is no object of columns, is nested too deeply, or has a text that is no Unicode."""
    if not isinstance(row, Mapping):
        raise DataError(f"{where}: a row must be an object of columns, not {type(row).__name__} ({repr(row)[:60]})")
    if is_too_deep(row):
        raise DataError(f"{where}: {TOO_DEEP}")
    if (fault := half_a_character(row)) is not None:
        raise DataError(
            f"{where}: {fault!a} holds half of a surrogate pair, which is no character: write the character itself"
        )


def _row(text: str, where: str) -> dict[str, Any]:
    try:
        row = parsed(text)
    except json.JSONDecodeError as error:
        raise DataError(
            f"{where}: not JSON: {error.msg} at character {error.pos + 1}; every line must be one object"
        ) from error
    except JsonError as error:
        raise DataError(f"{where}: {error}") from error
    # Text that is UTF-8 has half of a pair only where JSON writes it as an escape.
    if type(row) is not dict or "\\u" in text:
        refuse_row(row, where)
    found: dict[str, Any] = row
    return found
