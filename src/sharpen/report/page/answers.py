"""The answers to held-out prompts at one step, and the value of a measure for each prompt."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from sharpen.evaluation.estimators import majority_at_k, pass_at_k
from sharpen.report.page.json_text import finite
from sharpen.types import Finish

COLUMNS = ("source", "prompt_id", "reward", "tokens", "finish", "right", "answer")
REWARD = "reward/"
_AT_K = re.compile(r"(pass|maj)@(\d+)")

Key = tuple[str, str]
"""A prompt: the name of its source, and its id."""


@dataclass(frozen=True, slots=True)
class Answers:
    """The rows of each prompt, in the order in which they were drawn."""

    by_prompt: Mapping[Key, Sequence[Mapping[str, Any]]]

    @classmethod
    def of(cls, table: pa.Table) -> Answers:
        by_prompt: dict[Key, list[Mapping[str, Any]]] = {}
        for row in table.to_pylist():
            by_prompt.setdefault((row.get("source") or "", row["prompt_id"]), []).append(row)
        return cls(by_prompt)

    @property
    def n(self) -> int:
        """The answers of the prompt that has the fewest."""
        return min(map(len, self.by_prompt.values()), default=0)

    @property
    def sources(self) -> set[str]:
        return {source for source, _ in self.by_prompt} - {""}

    def of_source(self, source: str) -> Answers:
        return Answers({key: rows for key, rows in self.by_prompt.items() if key[0] == source})

    @property
    def votes(self) -> bool:
        """Whether answers were extracted."""
        return any(row.get("answer") is not None for rows in self.by_prompt.values() for row in rows)

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
        right = [[bool(row.get("right")) for row in rows] for rows in self.by_prompt.values()]
        if not right or not 1 <= k <= self.n or (kind == "maj" and not self.votes):
            return {}
        if kind == "pass":
            values = pass_at_k([len(marks) for marks in right], [sum(marks) for marks in right], k)
        else:
            values = majority_at_k([[row["answer"] for row in rows] for rows in self.by_prompt.values()], right, k)
        return dict(zip(self.by_prompt, values.tolist(), strict=True))


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
