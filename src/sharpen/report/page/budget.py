"""Which parts of runs a page in one file holds, so that it stays small enough to open and to send."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpen.report.page.json_text import Json, packed
from sharpen.report.page.rollouts import step_chunk
from sharpen.report.page.run_data import chunk
from sharpen.report.page.tokens import tokens_chunk
from sharpen.runs.folder import RunFolder

BYTES = {"training": 12_000_000, "held_out": 4_000_000, "tokens": 5_000_000}
"""The most that the parts of each kind take in the file, of all runs together."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A part of the page, compressed: the run that it is of, its name, and its text."""

    run: str
    name: str
    text: str


def chosen_chunks(runs: Sequence[Path], data: Json) -> list[Packed]:
    """The parts of the page of these runs. ``data`` is told which steps were left out.

    Where there is not room for all steps, the first and the last are there, and others evenly between them.
    """
    result: list[Packed] = []
    for path, shown in zip(runs, data["runs"], strict=True):
        share = {kind: limit // len(runs) for kind, limit in BYTES.items()}
        result.append(_packed(shown["id"], "prompts", chunk(path, "prompts")))
        for kind in ("training", "held_out", "tokens"):
            every = shown["steps"][kind]
            parts, kept = _of_kind(RunFolder(path), shown["id"], kind, every, share[kind])
            result += parts
            shown["steps"][kind] = kept
            if len(kept) < len(every):
                shown["steps"].setdefault("left_out", {})[kind] = len(every) - len(kept)
    return result


def spread(count: int) -> Iterator[int]:
    """The numbers below ``count``: first and last, then each time the middles of what is left, so that any first few
    of them lie evenly."""
    told: set[int] = set()
    parts = 1
    while len(told) < count:
        for part in range(parts + 1):
            number = (part * (count - 1)) // parts
            if number not in told:
                told.add(number)
                yield number
        parts *= 2


def _of_kind(
    folder: RunFolder, run: str, kind: str, steps: Sequence[int], limit: int
) -> tuple[list[Packed], list[int]]:
    kept: dict[int, list[Packed]] = {}
    size = 0
    for number in spread(len(steps)):
        step = steps[number]
        parts: list[Packed] = []
        for part in _of_step(folder, run, kind, step):
            size += len(part.text)
            if size > limit and (kept or parts):
                break
            parts.append(part)
        if size > limit and kept:
            break
        # Of the first step, as many parts as there is room for.
        kept[step] = parts
    return [part for step in sorted(kept) for part in kept[step]], sorted(kept)


def _of_step(folder: RunFolder, run: str, kind: str, step: int) -> Iterator[Packed]:
    files = folder.held_out_files if kind == "held_out" else folder.sample_files
    table = files.of_step(step)
    if table is None:
        return
    if kind != "tokens":
        yield _packed(run, f"{kind}/{step}", step_chunk(table, kind, step))
        return
    for row in range(len(table)):
        if (found := tokens_chunk(table, step, row)) is not None:
            yield _packed(run, f"tokens/{step}/{row}", found)


def _packed(run: str, name: str, value: Any) -> Packed:
    return Packed(run, name, packed(value))
