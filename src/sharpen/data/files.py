"""Reading data files, with errors that name the line."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpen.data.tables import read_table
from sharpen.errors import DataError
from sharpen.suggest import did_you_mean

if TYPE_CHECKING:
    from datasets import Dataset

_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
"""What a file begins with whose text is not UTF-8; that of UTF-32 begins with that of UTF-16."""


@dataclass(frozen=True, slots=True)
class Read:
    """The rows of a file and, if its rows stand on lines of their own, the numbers of these.

    ``all_text``: no value can be anything but a text, as in a CSV table.
    """

    rows: list[Any] | Dataset
    lines: tuple[int, ...] | None = None
    all_text: bool = False


def file_type(path: Path) -> str | None:
    """The type of a data file as its name says it, such as ``.jsonl``, also of ``train.jsonl.gz``; None if unknown."""
    packed, kinds = path.suffix.lower() == ".gz", READERS.keys() - {".parquet"}
    suffix = (Path(path.stem) if packed else path).suffix.lower()
    return suffix if suffix in (kinds if packed else READERS) else None


def read_file(path: Path) -> Read:
    """The rows of a data file, which has a `file_type`."""
    kind = file_type(path)
    assert kind is not None
    if path.is_dir():
        raise DataError(f"{path}: is a folder, and its name ends like a {kind} file; give a file in it")
    if not path.is_file():
        if not path.parent.is_dir():
            raise DataError(f"{path}: no such file; the folder {path.parent} does not exist either")
        siblings = [other.name for other in path.parent.iterdir() if other.is_file()]
        raise DataError(f"{path}: no such file.{did_you_mean(path.name, siblings)}")
    return READERS[kind](path)


class _TwiceError(ValueError):
    """A name that an object of JSON gives twice."""


def _read_jsonl(path: Path) -> Read:
    rows, lines = [], []
    for number, line in enumerate(_lines(_read_text(path)), start=1):
        if not line.strip():
            continue
        try:
            rows.append(json.loads(line, object_pairs_hook=_object))
        except json.JSONDecodeError as error:
            raise DataError(
                f"{path}:{number}: not JSON: {error.msg} at character {error.pos + 1}; every line must be one object"
            ) from error
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}:{number}: {_explained(error)}") from error
        lines.append(number)
    return Read(rows, tuple(lines))


def _read_json(path: Path) -> Read:
    text = "\n".join(_lines(_read_text(path)))
    try:
        rows = json.loads(text, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        hint = "; if every line is an object, name it .jsonl" if error.msg == "Extra data" else ""
        raise DataError(
            f"{path}:{error.lineno}: not JSON: {error.msg} at character {error.colno} of the line{hint}"
        ) from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}{_row_of_fault(text)}: {_explained(error)}") from error
    if not isinstance(rows, list):
        raise DataError(f"{path}: a .json file must hold a list of objects, not {type(rows).__name__}")
    return Read(rows)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _TwiceError(next(name for name in names if names.count(name) > 1))
    return found


def _explained(error: ValueError | RecursionError) -> str:
    if isinstance(error, _TwiceError):
        return f"an object has the name {str(error)!r} twice; which of the two values is meant? Leave one of them out"
    if isinstance(error, RecursionError):
        return "lists or objects are nested too deeply"
    return f"not JSON that can be read: {error}"


def _row_of_fault(text: str) -> str:
    """Which object of a list is the first that cannot be read; empty if the text is no list."""
    decoder = json.JSONDecoder(object_pairs_hook=_object)
    place = len(text) - len(text.lstrip())
    if not text.startswith("[", place):
        return ""
    for row, start in enumerate(_starts(text, place + 1, decoder), start=1):
        try:
            decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            return f", row {row}"
    return ""


def _starts(text: str, place: int, decoder: json.JSONDecoder) -> Iterator[int]:
    """Where the entries of a list begin, as long as those before can be read."""
    while place < len(text):
        while text[place : place + 1] in (" ", "\t", "\r", "\n", ","):
            place += 1
        yield place
        _, place = decoder.raw_decode(text, place)


def _read_table(path: Path, delimiter: str | None) -> Read:
    rows, lines = read_table(path, _read_text(path), delimiter)
    return Read(rows, lines, all_text=True)


def _read_parquet(path: Path) -> Read:
    import pyarrow as pa
    from datasets import Dataset, Features
    from pyarrow import parquet

    try:
        schema = parquet.read_schema(path)
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a Parquet file: {error}") from error
    for field in schema:
        if schema.names.count(field.name) > 1:
            raise DataError(f"{path}: has {schema.names.count(field.name)} columns called `{field.name}`")
        try:
            Features.from_arrow_schema(pa.schema([field]))
        except ValueError as error:
            raise DataError(
                f"{path}: column `{field.name}` has the type {field.type}, which cannot be read: write it as text, "
                "numbers, lists or objects"
            ) from error
    try:
        return Read(Dataset(parquet.read_table(path)))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: a damaged Parquet file: {error}") from error


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _read_text(path: Path) -> str:
    """UTF-8, or what the mark at the beginning of the file says; unpacked if its name ends in ``.gz``."""
    content = path.read_bytes()
    if path.suffix.lower() == ".gz":
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path}: not a gzip file: {error}") from error
    encoding = next((encoding for mark, encoding in _MARKS.items() if content.startswith(mark)), "utf-8-sig")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-8-sig":
            line = content.count(b"\n", 0, error.start) + 1
            place, encoding = f"{path}:{line}", "utf-8"
        else:
            place = str(path)
        raise DataError(
            f"{place}: not {encoding.upper()} text: {error.reason} at byte {error.start + 1} of the file; save it as "
            "UTF-8"
        ) from error


READERS: Mapping[str, Callable[[Path], Read]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".csv": partial(_read_table, delimiter=None),
    ".tsv": partial(_read_table, delimiter="\t"),
}
