"""The samples of recent steps without their texts, as columns with an entry per trajectory."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpen.types import Group

Floats = NDArray[np.float64]

_PART = "reward/"


@dataclass(frozen=True, slots=True)
class StepSamples:
    """The trajectories of one step. Rewards and parts are NaN where a reward failed or does not apply.

    ``groups`` numbers each trajectory's group, and ``prompt_ids`` are those of the groups. ``parts`` are in the order
    of the recipe's rewards. ``cut_off``: it ended because it was out of tokens. ``errors`` and ``refused`` are only
    those that there are.
    """

    step: int
    groups: NDArray[np.int64]
    prompt_ids: tuple[str, ...]
    rewards: Floats
    parts: Mapping[str, Floats]
    tokens: Floats
    cut_off: NDArray[np.bool_]
    errors: tuple[str, ...]
    refused: tuple[str, ...]

    @classmethod
    def of_groups(cls, step: int, groups: Sequence[Group]) -> StepSamples:
        trajectories = [trajectory for group in groups for trajectory in group.trajectories]
        scores = [trajectory.score for trajectory in trajectories]
        names = dict.fromkeys(name for score in scores if score is not None for name in score.parts)
        return cls(
            step,
            np.repeat(np.arange(len(groups)), [len(group.trajectories) for group in groups]),
            tuple(group.prompt.id for group in groups),
            _floats([None if score is None else score.total for score in scores]),
            {name: _floats([None if score is None else score.parts.get(name) for score in scores]) for name in names},
            _floats([t.drawn for t in trajectories]),
            np.array([t.truncated for t in trajectories], np.bool_),
            tuple(score.error for score in scores if score is not None and score.error is not None),
            tuple(score.refused for score in scores if score is not None and score.refused is not None),
        )

    @classmethod
    def of_columns(cls, step: int, columns: Mapping[str, Sequence[Any]]) -> StepSamples:
        """From the columns of a sample file; those of the same prompt are one group."""
        prompt_ids = columns["prompt_id"]
        numbers: dict[tuple[str, str | None], int] = {}
        prompts = zip(prompt_ids, columns.get("source", [None] * len(prompt_ids)), strict=True)
        groups = [numbers.setdefault(prompt, len(numbers)) for prompt in prompts]
        ends = columns.get("end")
        cut_off = [end == "out_of_tokens" for end in ends] if ends else [f == "length" for f in columns["finish"]]
        return cls(
            step,
            np.array(groups, np.int64),
            tuple(prompt_id for prompt_id, _ in numbers),
            _floats(columns["reward"]),
            {name.removeprefix(_PART): _floats(values) for name, values in columns.items() if name.startswith(_PART)},
            _floats(columns["tokens"]),
            np.array(cut_off, np.bool_),
            tuple(error for error in columns["error"] if error is not None),
            tuple(reason for reason in columns.get("refused", ()) if reason is not None),
        )


def columns_read(columns: Sequence[str]) -> list[str]:
    """Those of a sample file's columns that `StepSamples.of_columns` reads."""
    wanted = ("source", "prompt_id", "reward", "tokens", "finish", "end", "error", "refused")
    return [name for name in columns if name in wanted or name.startswith(_PART)]


@dataclass(frozen=True)
class Window:
    """The trajectories of several steps, one after another, as in `StepSamples`."""

    steps: tuple[int, ...]
    groups: NDArray[np.int64]
    prompt_ids: tuple[str, ...]
    rewards: Floats
    parts: Mapping[str, Floats]
    tokens: Floats
    cut_off: NDArray[np.bool_]
    errors: tuple[str, ...]
    refused: tuple[str, ...]

    @classmethod
    def of(cls, samples: Sequence[StepSamples]) -> Window:
        first, groups = 0, list[NDArray[np.int64]]()
        for one in samples:
            groups.append(one.groups + first)
            first += len(one.prompt_ids)
        names = dict.fromkeys(name for one in samples for name in one.parts)

        def part(name: str) -> Floats:
            return _joined([one.parts.get(name, np.full(len(one.rewards), np.nan)) for one in samples])

        return cls(
            tuple(one.step for one in samples),
            np.concatenate([*groups, np.zeros(0, np.int64)]),
            tuple(prompt_id for one in samples for prompt_id in one.prompt_ids),
            _joined([one.rewards for one in samples]),
            {name: part(name) for name in names},
            _joined([one.tokens for one in samples]),
            np.concatenate([*(one.cut_off for one in samples), np.zeros(0, np.bool_)]),
            tuple(error for one in samples for error in one.errors),
            tuple(reason for one in samples for reason in one.refused),
        )

    def __len__(self) -> int:
        return len(self.rewards)

    @cached_property
    def rewarded(self) -> NDArray[np.bool_]:
        return ~np.isnan(self.rewards)

    @cached_property
    def deviations(self) -> Floats:
        """Each reward less the mean of its group; 0 where there is none."""
        return self.deviation(self.rewards)

    def deviation(self, column: Floats) -> Floats:
        """Each value less the mean of its group over the trajectories that have a reward and a value; otherwise 0."""
        known = self.rewarded & ~np.isnan(column)
        totals = np.bincount(self.groups, np.where(known, column, 0.0))
        counts = np.bincount(self.groups, known)
        return np.where(known, column - (totals / np.maximum(counts, 1))[self.groups], 0.0)

    @cached_property
    def groups_with_spread(self) -> int:
        return int((np.bincount(self.groups, np.abs(self.deviations)) > 1e-9).sum())


def _floats(values: Sequence[float | None]) -> Floats:
    return np.array([math.nan if value is None else value for value in values], np.float64)


def _joined(parts: Sequence[Floats]) -> Floats:
    return np.concatenate([*parts, np.zeros(0)])


def commonest(texts: Sequence[str], *, longest: int = 120) -> str:
    """The most frequent text, on one line and cut."""
    text = " ".join(Counter(texts).most_common(1)[0][0].split())
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
