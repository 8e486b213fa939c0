"""Which parts of runs a page in one file holds, so that it stays small enough to open and to send."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from sharpen.errors import DataError
from sharpen.report.page.json_text import Json, packed
from sharpen.report.page.prompts import MOST_ROWS as MOST_PROMPTS
from sharpen.report.page.prompts import prompts_chunk
from sharpen.report.page.rollouts import MOST_CHARS, step_chunk
from sharpen.report.page.run_data import Say, files_of, select_columns, table_of_step
from sharpen.report.page.series import MOST_ROWS
from sharpen.report.page.tokens import tokens_chunk
from sharpen.runs.folder import RunFolder

BYTES = {"training": 12_000_000, "held_out": 4_000_000, "tokens": 5_000_000}
"""The most that the parts of each kind take in the file, of all runs together."""
LEAST_STEPS = 4
"""Texts are cut so far that so many steps fit, if they are large."""
LEAST_CHARS = 500
"""But no further than this."""
PROBED = 8
"""From the size of so many steps follows how many there may be room for."""
MORE_TRIED = 1.1
"""And so many times as many are made, because some are smaller."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A part of the page, compressed: the run that it is of, its name, and its text."""

    run: str
    name: str
    text: str


def most_metric_rows(runs: int) -> int:
    """How many rows of metrics a page of so many runs holds of each."""
    return max(100, MOST_ROWS // runs)


def chosen_chunks(runs: Sequence[Path], data: Json, say: Say) -> list[Packed]:
    """The parts of the page of these runs. ``data`` is told which steps were left out, ``say`` which are damaged.

    Where there is not room for all steps, the first, the last and the best are there, steps with tokens, and others
    evenly between them.
    """
    result: list[Packed] = []
    for path, shown in zip(runs, data["runs"], strict=True):
        limits = {kind: limit // len(runs) for kind, limit in BYTES.items()}
        chosen = _Chosen(RunFolder(path), shown["id"], limits, say)
        result += chosen.prompts(max(20, MOST_PROMPTS // len(runs)))
        best = [one["step"] for one in shown["evaluations"] if one["label"] == "best"]
        with_tokens = shown["steps"]["tokens"]
        first = [*best, *with_tokens[:1], *with_tokens[-1:]]
        for kind in ("training", "held_out", "tokens"):
            every = shown["steps"][kind]
            # The tokens of a completion are opened from where it stands.
            reachable = set(every if kind != "tokens" else shown["steps"]["training"])
            possible = [step for step in every if step in reachable]
            parts, kept = chosen.of_kind(kind, possible, first)
            result += parts
            shown["steps"][kind] = kept
            if len(kept) < len(every):
                shown["steps"].setdefault("left_out", {})[kind] = len(every) - len(kept)
    return result


def in_order(steps: Sequence[int], first: Collection[int] = ()) -> Iterator[int]:
    """The steps: the first and the last, those of ``first``, then each time the middles of what is left, so that
    however many are taken, they lie evenly."""
    told: set[int] = set()
    for step in (*steps[:1], *steps[-1:], *first):
        if step in steps and step not in told:
            told.add(step)
            yield step
    parts = 1
    while len(told) < len(steps):
        for part in range(parts + 1):
            step = steps[(part * (len(steps) - 1)) // parts]
            if step not in told:
                told.add(step)
                yield step
        parts *= 2


class _Chosen:
    """The parts of one run. ``limits`` are the bytes for each kind."""

    def __init__(self, folder: RunFolder, run: str, limits: dict[str, int], say: Say) -> None:
        self._folder, self._run, self._limits, self._say = folder, run, limits, say

    def prompts(self, most: int) -> list[Packed]:
        try:
            return [self._packed("prompts", prompts_chunk(self._folder, most))]
        except DataError as error:
            self._say(f"the page is without its table of prompts: {error}")
            return []

    def of_kind(self, kind: str, steps: Sequence[int], first: Collection[int]) -> tuple[list[Packed], list[int]]:
        """As many steps as there is room for, and of the last of them as many parts; and which steps these are."""
        limit = self._limits[kind]
        wanted = list(in_order(steps, first))
        found = dict(self._packed_steps(kind, wanted[:PROBED]))
        size = sum(map(_size, found.values()))
        if 0 < size < limit:
            fitting = math.ceil(MORE_TRIED * limit * len(found) / size)
            found.update(self._packed_steps(kind, wanted[PROBED:fitting]))
        kept: dict[int, list[Packed]] = {}
        for step in wanted:
            for part in found.get(step, ()):
                limit -= len(part.text)
                if limit < 0:
                    break
                kept.setdefault(step, []).append(part)
            if limit < 0:
                break
        return [part for step in sorted(kept) for part in kept[step]], sorted(kept)

    def _packed_steps(self, kind: str, steps: Sequence[int]) -> Iterator[tuple[int, list[Packed]]]:
        left = set(steps)
        files = files_of(self._folder, kind)
        try:
            for step, table in files.of_steps(steps, select_columns(kind)):
                left.discard(step)
                yield step, self._of_step(kind, step, table)
        except DataError:
            # What is sound beside the damage is found step by step.
            for step in sorted(left):
                try:
                    if (table := table_of_step(self._folder, kind, step)) is not None:
                        yield step, self._of_step(kind, step, table)
                except DataError as error:
                    self._say(f"the page is without step {step}: {error}")

    def _of_step(self, kind: str, step: int, table: pa.Table) -> list[Packed]:
        limit = self._limits[kind]
        if kind != "tokens":
            most_chars = min(MOST_CHARS, max(LEAST_CHARS, limit // LEAST_STEPS // max(1, len(table))))
            return [self._packed(f"{kind}/{step}", step_chunk(table, kind, step, most_chars))]
        parts: list[Packed] = []
        for row in range(len(table)):
            if (found := tokens_chunk(table, step, row)) is not None and limit > 0:
                parts.append(self._packed(f"tokens/{step}/{row}", found))
                limit -= len(parts[-1].text)
        return parts

    def _packed(self, name: str, value: Any) -> Packed:
        return Packed(self._run, name, packed(value))


def _size(parts: Sequence[Packed]) -> int:
    return sum(len(part.text) for part in parts)
