"""The answers to held-out prompts at one step, and the value of a measure for each prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa

from sharpen.evaluation.estimators import majority_at_k, pass_at_k
from sharpen.report.page.json_text import finite
from sharpen.types import Finish

COLUMNS = ("source", "prompt_id", "prompt", "reward", "tokens", "finish", "right", "answer")
REWARD = "reward/"
_AT_K = re.compile(r"(pass|maj)@(\d+)")

Key = tuple[str, str, str]
"""A prompt: the name of its source, its id, and its text, as another row may have the id once data has changed."""


@dataclass(frozen=True)
class Answers:
    """The rows of each prompt, in the order in which they were drawn."""

    by_prompt: Mapping[Key, Sequence[Mapping[str, Any]]]

    @classmethod
    def of(cls, table: pa.Table) -> Answers:
        by_prompt: dict[Key, list[Mapping[str, Any]]] = {}
        for row in table.to_pylist():
            by_prompt.setdefault((row.get("source") or "", row["prompt_id"], row["prompt"]), []).append(row)
        return cls(by_prompt)

    @property
    def n(self) -> int:
        """The answers of the prompt that has the fewest."""
        return min(map(len, self.by_prompt.values()), default=0)

    @cached_property
    def sources(self) -> set[str]:
        return {source for source, _, _ in self.by_prompt} - {""}

    def of_source(self, source: str) -> Answers:
        return Answers({key: rows for key, rows in self.by_prompt.items() if key[0] == source})

    @cached_property
    def votes(self) -> bool:
        """Whether the rewards extract answers: the file has a column of them, though none may have been found.

        Of several sources one is enough for the column, so there each must have an answer.
        """
        rows = [row for rows in self.by_prompt.values() for row in rows]
        answered = {row.get("source") for row in rows if row.get("answer") is not None}
        return answered >= self.sources if self.sources else any("answer" in row for row in rows[:1])

    def values(self, measure: str) -> dict[Key, float]:
        """The measure of each prompt that it applies to, as an evaluation has it; none of an unknown measure."""
        source, _, own = measure.partition("/")
        if source in self.sources and own:
            return self.of_source(source).values(own)
        if match := _AT_K.fullmatch(measure):
            return self._at_k(match[1], int(match[2]))
        means = {key: _mean([_number(row, measure) for row in rows]) for key, rows in self.by_prompt.items()}
        return {key: mean for key, mean in means.items() if mean is not None}

    def _at_k(self, kind: str, k: int) -> dict[Key, float]:
        if not 1 <= k <= self.n or (kind == "maj" and not self.votes):
            return {}
        if kind == "pass":
            values = pass_at_k([len(marks) for marks in self._right], [sum(marks) for marks in self._right], k)
        else:
            values = majority_at_k(self._extracted, self._right, k)
        return dict(zip(self.by_prompt, values.tolist(), strict=True))

    @cached_property
    def _right(self) -> list[list[bool]]:
        return [[bool(row.get("right")) for row in rows] for rows in self.by_prompt.values()]

    @cached_property
    def _extracted(self) -> list[list[str | None]]:
        return [[row["answer"] for row in rows] for rows in self.by_prompt.values()]


def _number(row: Mapping[str, Any], measure: str) -> float | None:
    """What an answer contributes to a mean measure; None if it does not apply."""
    if measure == "length":
        return float(row["tokens"])
    if measure == "truncated":
        return float(row["finish"] == Finish.LENGTH)
    if measure == "reward" or measure.startswith(REWARD):
        return finite(row.get(measure))
    return None


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None
