"""Reading data files, with errors that name the line."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sharpen.data.json_rows import read_lines, read_list
from sharpen.data.tables import read_table
from sharpen.errors import DataError
from sharpen.suggest import did_you_mean

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset


@dataclass(frozen=True, slots=True)
class Read:
    """The rows of a file and, if its rows stand on lines of their own, the numbers of these, and their columns.

    With columns, each row is known to be an object of these, whose texts are Unicode.
    ``all_text``: no value can be anything but a text, as in a CSV table.
    """

    rows: Sequence[Any] | Dataset
    lines: Sequence[int] | None = None
    columns: tuple[str, ...] | None = None
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


def _read_jsonl(path: Path) -> Read:
    return Read(*read_lines(path))


def _read_json(path: Path) -> Read:
    return Read(read_list(path))


def _read_table(path: Path, delimiter: str | None) -> Read:
    rows, lines, columns = read_table(path, delimiter)
    return Read(rows, lines, columns, all_text=True)


def _read_parquet(path: Path) -> Read:
    import pyarrow as pa
    from datasets import Dataset, Features
    from pyarrow import parquet

    # Where bytes were flipped or are missing, pyarrow raises one or the other.
    damaged = (pa.ArrowException, OSError, UnicodeDecodeError)
    try:
        schema = parquet.read_schema(path)
        names = schema.names
    except damaged as error:
        raise DataError(f"{path}: not a Parquet file: {error}") from error
    for field in schema:
        if names.count(field.name) > 1:
            raise DataError(f"{path}: has {names.count(field.name)} columns called `{field.name}`")
        if (twice := _named_twice(field.type)) is not None:
            raise DataError(
                f"{path}: the objects in column `{field.name}` have the name {twice!r} twice; which of the two values "
                "is meant? Leave one of them out"
            )
        try:
            Features.from_arrow_schema(pa.schema([field]))
        except ValueError as error:
            raise DataError(
                f"{path}: column `{field.name}` has the type {field.type}, which cannot be read: write it as text, "
                "numbers, lists or objects"
            ) from error
    try:
        table = parquet.read_table(path, page_checksum_verification=True)
        # Else text that is not UTF-8 would be found when its row is read.
        table.validate(full=True)
    except damaged as error:
        raise DataError(f"{path}: a damaged Parquet file: {error}") from error
    try:
        return Read(Dataset(table))
    # What `datasets` wrote of its types beside the schema is read without checks.
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: a damaged Parquet file: its types for `datasets`: {error}") from error


def _named_twice(type_: pa.DataType) -> str | None:
    """A name that two fields of an object have, at any depth."""
    fields = [type_.field(i) for i in range(type_.num_fields)]
    names = [field.name for field in fields]
    twice = (name for name in names if names.count(name) > 1)
    return next(twice, None) or next(filter(None, (_named_twice(field.type) for field in fields)), None)


READERS: Mapping[str, Callable[[Path], Read]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".csv": partial(_read_table, delimiter=None),
    ".tsv": partial(_read_table, delimiter="\t"),
}
