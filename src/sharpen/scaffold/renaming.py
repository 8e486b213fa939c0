"""Rows whose columns have other names than those that recipes read, and a program that renames them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from sharpen.data.files import file_type
from sharpen.errors import DataError

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


def renaming_error(
    source: str, renames: Mapping[str, str], said: str, *, joined: bool, shares: str | None
) -> DataError:
    """Names the columns to rename, and gives a Python program that writes a copy.

    ``joined``: a row's ``input`` belongs to its ``instruction``. ``shares`` is a column of conversations with the keys
    ``from`` and ``value``.
    """
    wanted = ", ".join(f"`{column}` → `{name}`" for column, name in renames.items())
    copy = _copy_of(source)
    lines = ["import json", "from sharpen.data.rows import read_rows"]
    if shares is not None:
        lines.append(f"roles = {ROLES}")
    lines += [f"with open({copy!r}, 'w') as file:", f"    for row in read_rows({source!r}):"]
    if joined:
        lines.append('        row["instruction"] = "\\n\\n".join(filter(None, [row["instruction"], row.pop("input")]))')
    if shares is not None:
        turn = '{"role": roles[turn["from"]], "content": turn["value"]}'
        lines.append(f"        row[{shares!r}] = [{turn} for turn in row[{shares!r}]]")
        wanted += "; its turns have `from` and `value`, and need `role` and `content`"
    lines += [
        f"        row = {{{dict(renames)!r}.get(name, name): value for name, value in row.items()}}",
        "        print(json.dumps(row, default=str), file=file)",
    ]
    program = "\n".join(f"    {line}" for line in lines)
    return DataError(
        f"{source}: these look like {said}, but recipes read other names of columns. Rename {wanted}. This Python "
        f"program writes a copy, for `sharpen init {copy}`:\n\n{program}\n"
    )


def _copy_of(source: str) -> str:
    path = Path(source)
    if file_type(path) is not None:
        return str(path.with_name(f"{path.stem}_renamed.jsonl"))
    return re.sub(r"\W+", "_", path.name).strip("_") + "_renamed.jsonl"
