"""A penalty for long completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from pydantic import PositiveInt, model_validator

from sharpen.functional.advantages import soft_overlong
from sharpen.rewards.reward import Reward
from sharpen.settings import Settings
from sharpen.types import Group, Score


class OverlongSettings(Settings):
    """Settings of `SoftOverlong`."""

    l_max: PositiveInt
    """Length in tokens at which the penalty reaches −1; DAPO uses the maximum generation length."""
    l_cache: PositiveInt
    """Number of tokens before ``l_max`` over which the penalty grows from 0 to −1."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.l_cache > self.l_max:
            raise ValueError(f"l_cache ({self.l_cache}) is larger than l_max ({self.l_max})")
        return self


class SoftOverlong(Reward):
    """DAPO's soft overlong punishment (2503.14476, equation 13), from 0 to −1.

    See `sharpen.functional.advantages.soft_overlong`, with limit ``l_max`` and cache ``l_cache``. The length of a
    trajectory counts the tokens that the model generated in all its turns, including end-of-turn tokens, and no tool
    output.
    """

    name = "soft_overlong"

    def __init__(self, settings: OverlongSettings) -> None:
        self.settings = settings

    @property
    def part_names(self) -> tuple[str, ...]:
        return (self.name,)

    def score(self, groups: Sequence[Group]) -> list[tuple[Score, ...]]:
        return [self._score_group(group) for group in groups]

    def _score_group(self, group: Group) -> tuple[Score, ...]:
        lengths_E = torch.tensor([trajectory.drawn for trajectory in group.trajectories], dtype=torch.float64)
        values_E = soft_overlong(lengths_E, limit=self.settings.l_max, cache=self.settings.l_cache)
        return tuple(Score(value, {self.name: value}) for value in values_E.tolist())
