"""Rows under the names that a method reads, as a run will have them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from sharpen.data.formats import recognised, renamed
from sharpen.data.rows import Rows
from sharpen.errors import DataError
from sharpen.scaffold.choose import METHODS, READS
from sharpen.scaffold.findings import Findings
from sharpen.scaffold.look import look


def readable(rows: Rows, columns: Mapping[str, str] | None = None) -> tuple[Rows, Findings]:
    """The rows as a run reads them, and what they are for; ``columns`` as in `data.columns`, or None to find out.

    Raises:
        DataError: the rows cannot be used, see `sharpen.scaffold.look.look`, or not under these names.
    """
    found = look(renamed(rows, columns or {}))
    reads = READS[METHODS[found.kind]]
    read = recognised(renamed(rows, columns or {}), reads)
    found = look(read)
    if found.renames and columns is None:
        return readable(rows, {name: column for column, name in found.renames.items()})
    if found.renames:
        wanted = ", ".join(f"`{column}` as `{name}`" for column, name in found.renames.items())
        raise DataError(f"{rows.name}: it would have to be read with {wanted}, unlike other rows")
    return read, replace(found, columns=columns or {})
