"""Reading data files, with errors that name the line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpen.errors import DataError
from sharpen.suggest import did_you_mean

if TYPE_CHECKING:
    from datasets import Dataset

Read = tuple["list[Any] | Dataset", tuple[int, ...] | None]
"""The rows and, for a text file with one row per line, their line numbers."""


def read_file(path: Path) -> Read:
    """The rows of a data file, whose suffix is one of READERS."""
    if path.is_dir():
        raise DataError(f"{path}: is a folder, and its name ends like a {path.suffix} file; give a file in it")
    if not path.is_file():
        if not path.parent.is_dir():
            raise DataError(f"{path}: no such file; the folder {path.parent} does not exist either")
        siblings = [other.name for other in path.parent.iterdir() if other.is_file()]
        raise DataError(f"{path}: no such file.{did_you_mean(path.name, siblings)}")
    return READERS[path.suffix](path)


def _read_jsonl(path: Path) -> Read:
    rows, lines = [], []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}:{number}: not JSON: {error.msg} at character {error.pos + 1}; every line must be one object"
            ) from error
        lines.append(number)
    return rows, tuple(lines)


def _read_json(path: Path) -> Read:
    try:
        rows = json.loads(_read_text(path))
    except json.JSONDecodeError as error:
        hint = "; if every line is an object, name it .jsonl" if error.msg == "Extra data" else ""
        raise DataError(
            f"{path}:{error.lineno}: not JSON: {error.msg} at character {error.colno} of the line{hint}"
        ) from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: a .json file must hold a list of objects, not {type(rows).__name__}")
    return rows, None


def _read_csv(path: Path) -> Read:
    import pyarrow as pa
    from pyarrow import csv

    try:
        table = csv.read_csv(path, parse_options=csv.ParseOptions(newlines_in_values=True))
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a CSV table with a header line: {error}") from error
    return table.to_pylist(), None


def _read_parquet(path: Path) -> Read:
    import pyarrow as pa
    from datasets import Dataset
    from pyarrow import parquet

    try:
        return Dataset(parquet.read_table(path)), None
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a Parquet file: {error}") from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 text: {error.reason} at byte {error.start + 1}; save it as UTF-8"
        ) from error


READERS: dict[str, Callable[[Path], Read]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".csv": _read_csv,
}
