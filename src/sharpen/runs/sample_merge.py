"""Sample files of single steps made one file, and a step taken out of it again as it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sharpen.errors import DataError
from sharpen.system.files import flush, replacing

ROW_GROUP_BYTES = 16 * 2**20
"""Rows are written together up to about this size: a merge holds no more, and reading a step reads no more."""
KEPT_FILES = 2_000
"""Of so many files the columns and steps are remembered."""
_LACKING = b"sharpen_lacking"
"""Metadata of a merged file: by step, the columns that it did not have."""


def read_file(file: Path, columns: Collection[str] | None = None) -> pa.Table:
    """All rows of a file, with those of ``columns`` that it has. Raises DataError if it is damaged."""
    with _named_damage(file):
        reader = pq.ParquetFile(file, page_checksum_verification=True)
        return reader.read(columns=_there(reader.schema_arrow, columns))


def read_step(merged: Path, step: int, columns: Collection[str] | None = None) -> pa.Table:
    """The rows of one step of a merged file, as they were in a file of their own. Raises DataError if it is damaged."""
    with _named_damage(merged):
        names = _there(pq.read_schema(merged), columns)
        # Without a partitioning, or a folder called `lr=0.1` would become a column.
        rows = pq.read_table(
            merged,
            columns=names,
            filters=[("step", "==", step)],
            partitioning=None,
            page_checksum_verification=True,
        )
    return _as_it_was(rows, step)


def read_steps(
    merged: Path, steps: Collection[int], select: Callable[[Sequence[str]], Collection[str]]
) -> Iterator[tuple[int, pa.Table]]:
    """Several steps of a merged file in their order, as `read_step` reads one; what is stored together is read once.

    ``select`` says which of the file's columns are read. Raises DataError if the file is damaged.
    """
    with _named_damage(merged):
        reader = pq.ParquetFile(merged, page_checksum_verification=True)
        names = list(dict.fromkeys((*_there(reader.schema_arrow, select(reader.schema_arrow.names)), "step")))
        column = reader.schema_arrow.names.index("step")
    for number in range(reader.num_row_groups):
        with _named_damage(merged):
            known = reader.metadata.row_group(number).column(column).statistics
            if known is not None and not any(known.min <= step <= known.max for step in steps):
                continue
            # No step is in two of them.
            rows = reader.read_row_group(number, columns=names)
        for step in sorted(set(pc.unique(rows["step"]).to_pylist()).intersection(steps)):
            yield step, _as_it_was(rows.filter(pc.equal(rows["step"], step)), step)


def _there(schema: pa.Schema, columns: Collection[str] | None) -> list[str]:
    return [name for name in schema.names if columns is None or name in columns]


def columns_of(file: Path) -> list[str]:
    """The columns that a file has. Raises DataError if it is damaged."""
    return list(_schema(file, _version(file)).names)


def steps_with(merged: Path, column: str) -> list[int]:
    """The steps of a merged file that had this column. Raises DataError if it is damaged."""
    schema = _schema(merged, _version(merged))
    if column not in schema.names:
        return []
    lacking = _lacking(schema)
    return [step for step in steps_of(merged) if column not in lacking.get(str(step), [])]


def steps_of(merged: Path) -> list[int]:
    """The steps that a merged file has. Raises DataError if it is damaged."""
    return list(_steps(merged, _version(merged)))


def _version(file: Path) -> tuple[int, int, int]:
    """What changes when a file does."""
    status = file.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


# Whoever follows a run asks for these again and again, and of the files of a long run only the last few are new.
@lru_cache(KEPT_FILES)
def _schema(file: Path, version: tuple[int, int, int]) -> pa.Schema:
    with _named_damage(file):
        return pq.read_schema(file)


@lru_cache(KEPT_FILES)
def _steps(merged: Path, version: tuple[int, int, int]) -> tuple[int, ...]:
    with _named_damage(merged):
        table = pq.ParquetFile(merged, page_checksum_verification=True).read(columns=["step"])
    return tuple(sorted(pc.unique(table["step"]).to_pylist()))


def merge(files: Mapping[int, Path], merged: Path) -> dict[Path, DataError]:
    """Write the rows of single steps to one file, in the order of the steps, and flush it to disk.

    Damaged files are left out, and returned with what is wrong; without a sound one nothing is written. Raises
    DataError if two files have unlike types in a column.
    """
    damaged: dict[Path, DataError] = {}
    schemas: dict[int, pa.Schema] = {}
    for step, file in files.items():
        try:
            # All of it: damage must be known before anything is written.
            schemas[step] = read_file(file).schema.remove_metadata()
        except DataError as error:
            damaged[file] = error
    if schemas:
        schema = _common_schema(schemas, merged)
        with replacing(merged) as partial:
            with partial.open("wb") as stream, pq.ParquetWriter(stream, schema, write_page_checksum=True) as writer:
                for table in _row_groups([files[step] for step in sorted(schemas)], schema):
                    writer.write_table(table, row_group_size=max(1, len(table)))
            flush(partial)
    return damaged


def _common_schema(schemas: Mapping[int, pa.Schema], merged: Path) -> pa.Schema:
    """The columns of all steps, with types that hold the values of all; a column of nulls fits every type."""
    try:
        schema = pa.unify_schemas([schemas[step] for step in sorted(schemas)], promote_options="permissive")
    except pa.ArrowTypeError as error:
        raise DataError(f"{merged}: cannot be made of the files of its steps: {error}") from error
    lacking = {step: [name for name in schema.names if name not in schemas[step].names] for step in sorted(schemas)}
    return schema.with_metadata({_LACKING: json.dumps({step: names for step, names in lacking.items() if names})})


def _row_groups(files: Sequence[Path], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of all files, with the same columns."""
    together, size = list[pa.Table](), 0
    for file in files:
        rows = read_file(file)
        columns = [
            rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(len(rows), field.type)
            for field in schema
        ]
        together.append(pa.table(columns, schema=schema))
        size += together[-1].nbytes
        if size >= ROW_GROUP_BYTES:
            yield pa.concat_tables(together)
            together, size = [], 0
    if together:
        yield pa.concat_tables(together)


def _as_it_was(rows: pa.Table, step: int) -> pa.Table:
    """Without the columns that only other steps have; a column of nulls has no type, as in the file of a step."""
    lacking = _lacking(rows.schema).get(str(step), [])
    rows = rows.drop_columns([name for name in lacking if name in rows.column_names]).replace_schema_metadata(None)
    columns = {name: rows[name] for name in rows.column_names}
    return pa.table({name: pa.nulls(len(c)) if c.null_count == len(c) else c for name, c in columns.items()})


def _lacking(schema: pa.Schema) -> dict[str, list[str]]:
    lacking: dict[str, list[str]] = json.loads((schema.metadata or {}).get(_LACKING, b"{}"))
    return lacking


@contextmanager
def _named_damage(file: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    # What the bytes of a damaged file are taken for decides which of these it is.
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: damaged, its samples cannot be read: {error}") from error
