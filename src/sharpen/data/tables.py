"""Tables as text: CSV and its relatives, whose values are the text that stands in the file."""

from __future__ import annotations

import csv
import io
import re
import sys
from array import array
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path

from sharpen.data.large import is_large
from sharpen.data.text_file import FileRows, TextFile
from sharpen.errors import DataError

_DELIMITERS = (",", ";", "\t")
_SEP_LINE = re.compile(r'("?)sep=([^"\w\r\n ])\1\r?\n')
"""A first line that tells Excel what separates the fields."""


def read_table(
    path: Path, delimiter: str | None = None
) -> tuple[Sequence[dict[str, str]], Sequence[int], tuple[str, ...]]:
    """The rows of a table with a header line, the lines on which they begin, and the names of its columns.

    Every value is a text, an empty field the empty text. Fields may be quoted with ``"`` and then hold line breaks (RFC
    4180). Fields are separated by what a first line such as ``sep=;`` names, as in files for Excel, or else by
    ``delimiter``; None: by the first of comma, semicolon and tab that splits the header.
    Blank lines are passed over, and blanks around the names of columns. Few rows are parsed once. Of many, each is
    checked now and parsed again when it is needed.

    Raises DataError for a name of a column that is given twice, a line with more or fewer fields than the header, a
    quote that is not closed, and NUL bytes.
    """
    file, header_line = TextFile(path), 1
    first = next((line.decode(errors="replace") for _, line in file.lines()), "")
    if (named := _SEP_LINE.match(first)) is not None:
        delimiter, header_line = named[2], 2
    if delimiter is None:
        header = next(_records(file, ",", header_line), ([], 0, 0, 0))[0]
        others = _DELIMITERS[1:] if len(header) == 1 else ()
        delimiter = next((other for other in others if other in header[0]), ",")
    records = _records(file, delimiter, header_line)
    names = [name.strip() for name in next(records, ([], 0, 0, 0))[0]]
    for name, times in Counter(names).items():
        if times > 1:
            called = f"called `{name}`" if name else "without a name"
            raise DataError(f"{path}: its header has {times} columns {called}; give each a name of its own")
    rows: list[dict[str, str]] = []
    starts, stops, lines = array("q"), array("q"), array("q")
    for fields, line, start, stop in records:
        if len(fields) != len(names):
            quoted = f"; a field with {_said(delimiter)} in it must be in double quotes"
            raise DataError(
                f"{path}:{line}: {_count(len(fields), 'field')}, but the header has "
                f"{_count(len(names), 'column')}{quoted if len(fields) > len(names) else ''}"
            )
        starts.append(start)
        stops.append(stop)
        lines.append(line)
        if is_large(len(lines)):
            rows.clear()
        else:
            rows.append(dict(zip(names, fields, strict=True)))
    if not is_large(len(lines)):
        return rows, tuple(lines), tuple(names)
    return FileRows(file, starts, stops, partial(_row, names, delimiter)), lines, tuple(names)


def _records(file: TextFile, delimiter: str, header_line: int) -> Iterator[tuple[list[str], int, int, int]]:
    """The fields of each record, the line on which it begins, and the bytes at which it begins and ends."""
    stop, begins, number = 0, header_line, 0

    def lines() -> Iterator[str]:
        nonlocal stop, number
        for number, (start, line) in enumerate(file.lines(), start=1):
            stop = start + len(line)
            if number < header_line:
                continue
            if b"\0" in line:
                raise DataError(f"{file.path}:{number}: a NUL byte, which no text has; save the file as UTF-8")
            yield file.decoded(line, start, number)

    reader = csv.reader(lines(), delimiter=delimiter, strict=True)
    start = stop
    try:
        with _long_fields():
            for fields in reader:
                if fields:
                    yield fields, begins, start, stop
                begins, start = number + 1, stop
    except csv.Error as error:
        raise DataError(f"{file.path}:{begins}: not a CSV table: {_explained(error, delimiter)}") from error


def _row(names: Sequence[str], delimiter: str, record: str) -> dict[str, str]:
    with _long_fields() if len(record) > csv.field_size_limit() else nullcontext():
        fields = next(csv.reader(io.StringIO(record, newline=""), delimiter=delimiter, strict=True))
    return dict(zip(names, fields, strict=True))


@contextmanager
def _long_fields() -> Iterator[None]:
    """Lets fields be of any length. That is a setting of the whole process."""
    limit = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


def _explained(error: csv.Error, delimiter: str) -> str:
    if "unexpected end of data" in str(error):
        return "a quoted field that begins in this row is not closed"
    if "expected after" in str(error):
        return (
            f"after the closing quote of a field comes neither {_said(delimiter)} nor the end of the line; a double "
            'quote within a quoted field is written twice, ""'
        )
    return str(error)


def _said(delimiter: str) -> str:
    return {",": "a comma", ";": "a semicolon", "\t": "a tab"}.get(delimiter, repr(delimiter))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
