"""What is measured: the cases, the lengths of their completions, and the reward. Standard library only."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

SEED = 20_250_101
LEARNING_RATE = 1e-6
EPSILON = 0.2
MAX_GRAD_NORM = 1.0


@dataclass(frozen=True, slots=True)
class Case:
    """One step of GRPO: ``prompts`` prompts of ``prompt`` tokens, ``group`` completions each, of up to ``limit``.

    ``spread``: completions differ in length, as a model's; else all have ``limit`` tokens.
    """

    model: str
    prompt: int
    limit: int
    prompts: int
    group: int
    spread: bool = True

    @property
    def name(self) -> str:
        return f"{self.model}-{self.prompt}x{self.limit}"

    @property
    def completions(self) -> int:
        return self.prompts * self.group

    def lengths(self) -> list[int]:
        """The tokens of each completion of a step, prompt by prompt; every step has the same."""
        if not self.spread:
            return [self.limit] * self.completions
        lengths = spread_lengths(self.completions, self.limit)
        random.Random(SEED).shuffle(lengths)
        return lengths


def spread_lengths(count: int, limit: int) -> list[int]:
    """Quantiles of a log-normal distribution whose median is half of ``limit``, cut off there: as models answer."""
    normal = NormalDist(mu=math.log(0.5), sigma=0.5)
    quantiles = (normal.inv_cdf((i + 0.5) / count) for i in range(count))
    return [min(max(round(limit * math.exp(q)), 1), limit) for q in quantiles]


CASES = {
    case.name: case
    for case in (
        Case("tiny", 12, 16, 32, 16),
        Case("tiny", 64, 64, 16, 8),
        Case("tiny", 256, 64, 8, 8),
        Case("tiny", 512, 32, 4, 16),
        Case("smollm2", 48, 48, 8, 8),
        Case("smollm2", 256, 32, 4, 8),
        Case("smollm2", 768, 32, 2, 8),
    )
}


def case_of(setting: str | dict[str, Any]) -> Case:
    """The case that a setting names, or spells out."""
    return CASES[setting] if isinstance(setting, str) else Case(**setting)


def reward(text: str) -> float:
    """A number of the characters alone, which hardly two completions share: their mean place in a cycle of 97."""
    return sum(ord(character) % 97 for character in text) / (97 * len(text)) if text else 0.0
