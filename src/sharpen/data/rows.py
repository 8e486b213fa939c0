"""Rows of data from a list, a file, a `datasets` data set or a hub id."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from sharpen.data.files import READERS, file_type, read_file
from sharpen.data.json_rows import refuse_row
from sharpen.data.large import is_large
from sharpen.data.query import parse_query
from sharpen.errors import DataError
from sharpen.suggest import could_be_hub_id

if TYPE_CHECKING:
    from datasets import Dataset

RowSequence = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows with a name for error messages, such as a file's path, and a short ``key`` that row ids begin with.

    They may be read from ``data`` each time that they are asked for. ``lines`` are the numbers of the lines on which
    rows begin, if the source is a text file with such lines. ``all_text``: no value can be anything but a text, as in a
    CSV file. ``notes`` are what a user should know about how the rows were read. A part of the rows of a source has
    their ``numbers`` there, counted from 0, and the source's ``first_row``, which says what all of them hold.
    """

    name: str
    key: str
    columns: tuple[str, ...]
    data: RowSequence
    lines: Sequence[int] | None = None
    all_text: bool = False
    notes: tuple[str, ...] = ()
    numbers: Sequence[int] | None = None
    first_row: Mapping[str, Any] | None = None

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return dict(self.data[index])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (dict(row) for row in self.data)

    @property
    def example(self) -> Mapping[str, Any]:
        """The first row of the source."""
        return self[0] if self.first_row is None else self.first_row

    def where(self, index: int) -> str:
        """What error messages call row ``index``: ``train.jsonl:7`` or ``train.parquet, row 7``, counted from 1."""
        if self.lines is not None:
            return f"{self.name}:{self.lines[index]}"
        return f"{self.name}, row {self._number(index) + 1}"

    def row_id(self, index: int) -> str:
        """A short id, stable between runs and unique among these rows; rows are counted from 1."""
        return f"{self.key}:{self._number(index) + 1}"

    def number_of(self, row_id: str) -> int:
        """The number of a row in its source, counted from 0, by its `row_id`."""
        return int(row_id.removeprefix(f"{self.key}:")) - 1

    def part(self, indices: Sequence[int]) -> Rows:
        """Some of the rows, in this order, which keep their names and their ids."""
        return replace(
            self,
            data=[self[index] for index in indices],
            lines=None if self.lines is None else tuple(self.lines[index] for index in indices),
            numbers=tuple(map(self._number, indices)),
            first_row=self.example,
        )

    def converted(self, change: Callable[[dict[str, Any], int], Mapping[str, Any]]) -> Rows:
        """The rows as ``change`` makes them of a row and its index.

        Many rows are converted each time that they are asked for.
        """
        lazy = is_large(len(self))
        return replace(
            self, data=_Converted(self.data, change) if lazy else [change(row, i) for i, row in enumerate(self)]
        )

    def _number(self, index: int) -> int:
        return index if self.numbers is None else self.numbers[index]


@dataclass(frozen=True, slots=True)
class _Converted(Sequence[Mapping[str, Any]]):
    """Rows that are converted when they are asked for."""

    rows: RowSequence
    change: Callable[[dict[str, Any], int], Mapping[str, Any]]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> list[Mapping[str, Any]]: ...
    def __getitem__(self, index: int | slice) -> Mapping[str, Any] | list[Mapping[str, Any]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return self.change(dict(self.rows[index]), index)

    def __iter__(self) -> Iterator[Mapping[str, Any]]:
        return (self.change(dict(row), index) for index, row in enumerate(self.rows))


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
        label, key = name or str(path), name or path.name
        if read.columns is not None:
            if not read.rows:
                raise _no_rows(label)
            return Rows(label, key, read.columns, read.rows, read.lines, all_text=read.all_text)
        if isinstance(read.rows, list):
            return _from_list(read.rows, label, key=key)
        return _from_dataset(read.rows, label, key=key)
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


def _from_list(rows: Sequence[Any], name: str, *, key: str) -> Rows:
    if not rows:
        raise _no_rows(name)
    if all(isinstance(row, str) for row in rows):
        rows = [{"prompt": prompt} for prompt in rows]
    columns: dict[str, None] = {}
    for number, row in enumerate(rows, start=1):
        refuse_row(row, f"{name}, row {number}")
        columns.update(dict.fromkeys(row))
    return Rows(name, key, tuple(columns), rows)


def _no_rows(name: str) -> DataError:
    return DataError(f"{name}: no rows in it; at least one is needed")


def _from_dataset(dataset: Dataset, name: str, *, key: str) -> Rows:
    from sharpen.data.stored import StoredRows, columns_of, plain

    if len(dataset) == 0:
        raise _no_rows(name)
    dataset, notes = plain(dataset)
    return Rows(name, key, columns_of(dataset), StoredRows(dataset), notes=notes)
