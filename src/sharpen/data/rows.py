"""Rows of data from a list, a file, a `datasets` data set or a hub id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from sharpen.data.files import READERS, file_type, read_file
from sharpen.data.query import parse_query
from sharpen.errors import DataError
from sharpen.suggest import could_be_hub_id

if TYPE_CHECKING:
    from datasets import Dataset

RowSequence = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows with a name for error messages, such as a file's path, and a short ``key`` that row ids begin with.

    ``first`` rows of the source come before these. ``lines`` are the numbers of the lines on which rows begin, if the
    source is a text file with such lines. ``all_text``: no value can be anything but a text, as in a CSV file.
    ``notes`` are what a user should know about how the rows were read.
    """

    name: str
    key: str
    columns: tuple[str, ...]
    data: RowSequence | Dataset
    lines: tuple[int, ...] | None = None
    first: int = 0
    all_text: bool = False
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self.data[index])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (dict(row) for row in self.data)

    def where(self, index: int) -> str:
        """What error messages call row ``index``: ``train.jsonl:7`` or ``train.parquet, row 7``, counted from 1."""
        return f"{self.name}:{self.lines[index]}" if self.lines else f"{self.name}, row {self.first + index + 1}"

    def row_id(self, index: int) -> str:
        """A short id, stable between runs and unique among these rows; rows are counted from 1."""
        return f"{self.key}:{self.first + index + 1}"

    def only(self, index: int) -> Rows:
        """One of the rows, which keeps its name and its id."""
        lines = None if self.lines is None else (self.lines[index],)
        return replace(self, data=[self[index]], lines=lines, first=self.first + index)


@overload
def read_rows(source: str | Path | RowSequence | Rows, *, name: str | None = None) -> Rows: ...
@overload
def read_rows(source: Dataset, *, name: str | None = None) -> Rows: ...
def read_rows(source: Any, *, name: str | None = None) -> Rows:
    """Read rows from any source of data.

    ``source`` is a sequence of mappings, or of prompts as plain texts; the path of a ``.jsonl``, ``.json``,
    ``.parquet``, ``.csv`` or ``.tsv`` file, all but ``.parquet`` also packed as ``.gz``; a ``datasets.Dataset``; a
    folder that ``datasets.load_dataset`` reads; or a data set on the hub with its configuration and split, such as
    ``openai/gsm8k?name=main&split=train``. ``name`` replaces the name in error messages.

    Raises DataError if the source is missing, empty or malformed, and RecipeError for an unknown query key.
    """
    if isinstance(source, Rows):
        return source
    if isinstance(source, (str, Path)):
        return _read_location(source, name)
    if isinstance(source, Sequence):
        return _from_list(source, name or "rows given as a list", key=name or "row")
    # Imported here: datasets takes a second to import, and other sources do not need it.
    from sharpen.data.hub import one_split

    label = name or "the given dataset"
    return _from_dataset(one_split(source, label), label, key=name or "row")


def _read_location(source: str | Path, name: str | None) -> Rows:
    path = Path(source).expanduser()
    if file_type(path) is not None:
        read = read_file(path)
        label = name or str(path)
        if isinstance(read.rows, list):
            rows = _from_list(read.rows, label, key=name or path.name, lines=read.lines)
            return replace(rows, all_text=read.all_text)
        return _from_dataset(read.rows, label, key=name or path.name)
    if path.is_file():
        raise DataError(
            f"{path}: files of type {''.join(path.suffixes[-2:])!r} cannot be read; give one of {', '.join(READERS)}"
        )

    from sharpen.data.hub import load

    # Where the hub could have it too, messages say that the folder was read.
    hiding = could_be_hub_id(str(source)) and Path(parse_query(str(source))[0]).is_dir()
    label = f"./{source}" if hiding else str(source)
    dataset, all_text = load(str(source))
    return replace(_from_dataset(dataset, name or label, key=name or path.name), all_text=all_text)


def _from_list(rows: Sequence[Any], name: str, *, key: str, lines: tuple[int, ...] | None = None) -> Rows:
    if not rows:
        raise DataError(f"{name}: no rows in it; at least one is needed")
    if lines is None and all(isinstance(row, str) for row in rows):
        rows = [{"prompt": prompt} for prompt in rows]
    columns: dict[str, None] = {}
    for index, row in enumerate(rows):
        if not isinstance(row, Mapping):
            where = f"{name}:{lines[index]}" if lines else f"{name}, row {index + 1}"
            raise DataError(f"{where}: a row must be an object of columns, not {type(row).__name__} ({repr(row)[:60]})")
        columns.update(dict.fromkeys(row))
        if (fault := _half_a_character(row)) is not None:
            where = f"{name}:{lines[index]}" if lines else f"{name}, row {index + 1}"
            raise DataError(
                f"{where}: {fault!a} holds half of a surrogate pair, which is no character: write the character itself"
            )
    return Rows(name, key, tuple(columns), rows, lines)


def _half_a_character(value: Any) -> str | None:
    """A text within ``value`` that has no form in UTF-8, cut to where that is; None if all have."""
    if isinstance(value, str):
        if value.isascii():
            return None
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return value[max(0, error.start - 20) : error.end]
        return None
    if isinstance(value, Mapping):
        return next(filter(None, map(_half_a_character, (*value.keys(), *value.values()))), None)
    if isinstance(value, list | tuple):
        return next(filter(None, map(_half_a_character, value)), None)
    return None


def _from_dataset(dataset: Dataset, name: str, *, key: str) -> Rows:
    from sharpen.data.stored import columns_of, plain

    if len(dataset) == 0:
        raise DataError(f"{name}: no rows in it; at least one is needed")
    dataset, notes = plain(dataset)
    return Rows(name, key, columns_of(dataset), dataset, notes=notes)
