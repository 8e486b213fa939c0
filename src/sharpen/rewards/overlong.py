"""A penalty for length, in tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from pydantic import PositiveInt, model_validator

from sharpen.rewards.reward import Reward
from sharpen.settings import Settings
from sharpen.types import Group, Score


class OverlongSettings(Settings):
    """Settings of `SoftOverlong`."""

    l_max: PositiveInt
    """Tokens of a completion from which on the penalty is whole; that of DAPO is the longest that is sampled."""
    l_cache: PositiveInt
    """Tokens before ``l_max`` over which the penalty grows."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.l_cache > self.l_max:
            raise ValueError(f"l_cache ({self.l_cache}) is larger than l_max ({self.l_max})")
        return self


class SoftOverlong(Reward):
    """DAPO's soft overlong punishment (2503.14476, equation 13), from 0 to −1, of a completion of |y| tokens.

    ::

        0                               if |y| ≤ L_max − L_cache
        ((L_max − L_cache) − |y|) / L_cache   if L_max − L_cache < |y| ≤ L_max
        −1                              if L_max < |y|

    |y| counts the tokens that the model wrote, its end-of-sequence token included, and no tool's.
    """

    name = "soft_overlong"

    def __init__(self, settings: OverlongSettings) -> None:
        self.settings = settings

    def score(self, groups: Sequence[Group]) -> list[tuple[Score, ...]]:
        return [
            tuple(self._score_one(sum(completion.loss_mask)) for completion in group.completions) for group in groups
        ]

    def _score_one(self, length: int) -> Score:
        begins = self.settings.l_max - self.settings.l_cache
        value = max(min((begins - length) / self.settings.l_cache, 0.0), -1.0)
        return Score(value, {self.name: value})
