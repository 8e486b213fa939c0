"""``metrics.jsonl``: a line for each step. What is damaged in it is named, and mended where that is possible."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sharpen.runs.steps_in_words import gaps, steps_in_words
from sharpen.system.files import flush, named_write_errors, replacing, write_text

MOST_PROBLEMS = 5
"""So many damaged lines are named; the others are counted."""

Row = dict[str, float]


class MetricsFile:
    """Rows as JSON objects, in the order of their steps; each has a whole ``step`` and its other values are numbers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.as_found = path.with_name(f"damaged_{path.name}")
        """A copy of the file as it was before it was mended."""

    def append(self, row: Mapping[str, float]) -> None:
        """Add the row of a step. Raises DiskError if it cannot be written, and leaves no part of the line then."""
        line = f"{json.dumps(row)}\n".encode()
        with (
            named_write_errors(self.path, f"the metrics of step {row['step']:g}"),
            self.path.open("ab", buffering=0) as file,
        ):
            before = file.tell()
            try:
                while line:
                    line = line[file.write(line) :]
            except OSError:
                # The first error is the one to raise. If the disk refuses this as well, resuming cuts the line off.
                with suppress(OSError):
                    file.truncate(before)
                raise

    def flush(self) -> None:
        """Have the rows on disk before a checkpoint counts on them."""
        if self.path.exists():
            with named_write_errors(self.path, "the metrics"):
                flush(self.path)

    def read(self) -> tuple[list[Row], list[str]]:
        """The rows in the order of their steps, one for each, and what is wrong with the file, in sentences.

        Lines that are no row are left out, and of two rows of a step the later one counts. A last line without its end
        is still being written, or was when the run was killed: no problem. A file that is not there has no rows.
        """
        found = _parsed(self._content())
        problems = [f"{self.path}: {_listed(found.problems)}; resuming the run mends it"] if found.problems else []
        if missing := gaps(found.lines, max(found.lines, default=0)):
            problems.append(f"{self.path}: no metrics of {steps_in_words(missing)}")
        return [found.rows[step] for step in sorted(found.rows)], problems

    def cut_back(self, step: int) -> list[str]:
        """Remove the rows after ``step``, which are written again, and everything that is no row.

        Returns what was damaged, in sentences, such as rows up to ``step`` that are gone: these are not written again.
        """
        content, said = self._content(), []
        found = _parsed(content)
        if found.problems:
            with named_write_errors(self.as_found, "a copy of the damaged metrics"), replacing(self.as_found) as copy:
                shutil.copyfile(self.path, copy)
                flush(copy)
            said.append(f"{self.path}: {_listed(found.problems)}: mended; {self.as_found.name} is the file as it was")
        kept = {number: found.lines[number] for number in sorted(found.lines) if number <= step}
        mended = b"".join(line + b"\n" for line in kept.values())
        if mended != content:
            with named_write_errors(self.path, "the metrics", len(mended)):
                write_text(self.path, mended.decode())
        if missing := gaps(kept, step):
            said.append(
                f"{self.path}: no metrics of {steps_in_words(missing)}: the run goes on from step {step} without them; "
                f"to have them, remove the checkpoints after step {missing[0][0] - 1} before you resume"
            )
        return said

    def _content(self) -> bytes:
        return self.path.read_bytes() if self.path.exists() else b""


def row_of(line: bytes) -> Row | str:
    """The row that a line holds, or what is wrong with it."""
    if b"\0" in line:
        return "holds NUL bytes"
    if not line.strip():
        return "is blank"
    try:
        row = json.loads(line.decode("utf-8"))
    # A number of thousands of digits is a ValueError too, as is a line that is not UTF-8.
    except (ValueError, RecursionError):
        return "is not JSON"
    if not isinstance(row, dict):
        return "is not an object"
    if not _is_step(row.get("step")):
        return "has no `step` that is a whole number"
    for name, value in row.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"has {json.dumps(name)} that is not a number"
    return row


@dataclass(slots=True)
class _Parsed:
    """By step: the rows, and their lines without the line break. ``problems`` are of lines, counted from 1."""

    rows: dict[int, Row] = field(default_factory=dict)
    lines: dict[int, bytes] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)


def _parsed(content: bytes) -> _Parsed:
    found, at_line, latest = _Parsed(), dict[int, int](), -1
    for number, line in _lines(content):
        row = row_of(line)
        if isinstance(row, str):
            found.problems.append((number, row))
            continue
        step = int(row["step"])
        if step in found.rows:
            found.problems.append((number, f"is of step {step} again, as line {at_line[step]}"))
        elif step < latest:
            found.problems.append((number, f"is of step {step}, after one of step {latest}"))
        found.rows[step], found.lines[step], at_line[step], latest = row, line, number, step
    return found


def _lines(content: bytes) -> Iterator[tuple[int, bytes]]:
    """The lines with their numbers, without a last one that has no end, unless a power cut left it."""
    *whole, last = content.split(b"\n")
    yield from enumerate(whole, start=1)
    # A part of an object is no JSON: what is one has only lost its line break.
    if last and (b"\0" in last or not isinstance(row_of(last), str)):
        yield len(whole) + 1, last


def _is_step(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _listed(problems: list[tuple[int, str]]) -> str:
    named = [f"line {number} {problem}" for number, problem in problems[:MOST_PROBLEMS]]
    more = len(problems) - len(named)
    return "; ".join([*named, f"and {more} more"] if more else named)
