"""Which parts of runs a page in one file holds, so that it stays small enough to open and to send."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpen.errors import DataError
from sharpen.report.page.json_text import Json, packed
from sharpen.report.page.prompts import MOST_ROWS as MOST_PROMPTS
from sharpen.report.page.prompts import prompts_chunk
from sharpen.report.page.rollouts import MOST_CHARS, step_chunk
from sharpen.report.page.run_data import Say, table_of_step
from sharpen.report.page.series import MOST_ROWS
from sharpen.report.page.tokens import tokens_chunk
from sharpen.runs.folder import RunFolder

BYTES = {"training": 12_000_000, "held_out": 4_000_000, "tokens": 5_000_000}
"""The most that the parts of each kind take in the file, of all runs together."""
LEAST_STEPS = 4
"""Texts are cut so far that so many steps fit, if they are large."""
LEAST_CHARS = 500
"""But no further than this."""


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
        kept: dict[int, list[Packed]] = {}
        room = self._limits[kind]
        for step in in_order(steps, first):
            try:
                for part in self._of_step(kind, step):
                    room -= len(part.text)
                    if room < 0:
                        break
                    kept.setdefault(step, []).append(part)
            except DataError as error:
                self._say(f"the page is without step {step}: {error}")
            if room < 0:
                break
        return [part for step in sorted(kept) for part in kept[step]], sorted(kept)

    def _of_step(self, kind: str, step: int) -> Iterator[Packed]:
        table = table_of_step(self._folder, kind, step)
        if table is None:
            return
        if kind == "tokens":
            for row in range(len(table)):
                if (found := tokens_chunk(table, step, row)) is not None:
                    yield self._packed(f"tokens/{step}/{row}", found)
        else:
            fitting = self._limits[kind] // LEAST_STEPS // max(1, len(table))
            most_chars = min(MOST_CHARS, max(LEAST_CHARS, fitting))
            yield self._packed(f"{kind}/{step}", step_chunk(table, kind, step, most_chars))

    def _packed(self, name: str, value: Any) -> Packed:
        return Packed(self._run, name, packed(value))
