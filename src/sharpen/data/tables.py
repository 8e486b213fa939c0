"""Tables as text: CSV and its relatives, whose values are the text that stands in the file."""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import Counter
from pathlib import Path

from sharpen.errors import DataError

_DELIMITERS = (",", ";", "\t")
_SEP_LINE = re.compile(r'("?)sep=([^"\w\r\n ])\1\r?\n')
"""A first line that tells Excel what separates the fields."""


def read_table(path: Path, text: str, delimiter: str | None = None) -> tuple[list[dict[str, str]], tuple[int, ...]]:
    """The rows of a table with a header line, and the lines on which they begin.

    Every value is a text, an empty field the empty text. Fields may be quoted with ``"`` and then hold line breaks (RFC
    4180). Fields are separated by what a first line such as ``sep=;`` names, as in files for Excel, or else by
    ``delimiter``; None: by the first of comma, semicolon and tab that splits the header.
    Blank lines are passed over, and blanks around the names of columns.

    Raises DataError for a name of a column that is given twice, a line with more or fewer fields than the header, a
    quote that is not closed, and NUL bytes.
    """
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise DataError(f"{path}:{line}: a NUL byte, which no text has; save the file as UTF-8")
    header_line = 1
    if (named := _SEP_LINE.match(text)) is not None:
        text, delimiter, header_line = text[named.end() :], named[2], 2
    if delimiter is None:
        header, _ = next(iter(_records(path, text, ",")), ([], 0))
        others = _DELIMITERS[1:] if len(header) == 1 else ()
        delimiter = next((other for other in others if other in header[0]), ",")
    records = _records(path, text, delimiter, header_line)
    if not records:
        return [], ()
    (names, _), *rest = records
    names = [name.strip() for name in names]
    for name, times in Counter(names).items():
        if times > 1:
            called = f"called `{name}`" if name else "without a name"
            raise DataError(f"{path}: its header has {times} columns {called}; give each a name of its own")
    for fields, line in rest:
        if len(fields) != len(names):
            quoted = f"; a field with {_said(delimiter)} in it must be in double quotes"
            raise DataError(
                f"{path}:{line}: {_count(len(fields), 'field')}, but the header has "
                f"{_count(len(names), 'column')}{quoted if len(fields) > len(names) else ''}"
            )
    return [dict(zip(names, fields, strict=True)) for fields, _ in rest], tuple(line for _, line in rest)


def _records(path: Path, text: str, delimiter: str, first_line: int = 1) -> list[tuple[list[str], int]]:
    """The fields of each record and the line on which it begins; the text begins on ``first_line`` of the file."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    records, begins = [], first_line
    limit = csv.field_size_limit(sys.maxsize)
    try:
        for fields in reader:
            if fields:
                records.append((fields, begins))
            begins = first_line + reader.line_num
    except csv.Error as error:
        raise DataError(f"{path}:{begins}: not a CSV table: {_explained(error, delimiter)}") from error
    finally:
        csv.field_size_limit(limit)
    return records


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
