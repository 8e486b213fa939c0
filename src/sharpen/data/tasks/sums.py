"""Sums of two one-digit numbers, asked of a chat model in words."""

import re
from functools import cached_property
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from pydantic import Field, NonNegativeInt

from sharpen.data.rows import Rows
from sharpen.data.tasks.task import PromptsOnly, task_rows
from sharpen.settings import Settings
from sharpen.types import Row

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

_NUMBER = re.compile(r"(?:(?<!\w)-)?\d[\d,]*(?:\.\d+)?")


class Sums(PromptsOnly, Settings):
    """The task ``sums``: "What is three plus five?", for all pairs of one-digit numbers.

    A pair that is held out is trained on in neither order. Every sum that is held out is the sum of some
    training pair too, so what is measured is new pairs, not new answers.
    """

    held_out_share: float = Field(default=0.2, gt=0, le=0.5)
    """Share of the 55 pairs that is held out."""
    worked_example: bool = False
    """Whether the conversation begins with a sum answered as an equation, which small models take up."""
    seed: NonNegativeInt = 0

    @property
    def name(self) -> str:
        return "sums"

    def train_rows(self) -> Rows:
        held_out = self._held_out_pairs
        return self._rows("train", [pair for pair in PAIRS if pair not in held_out])

    def held_out_rows(self) -> Rows:
        return self._rows("held out", sorted(self._held_out_pairs))

    def verify(self, completion: str, *, answer: int, **_: Any) -> float:
        """1 if the last number of the completion is the answer in digits.

        Working before it is allowed. Number words score 0, since the prompt requires digits; so do 8.5, 08 and
        -8 for 8.
        """
        return float(self.answer(completion) == str(answer))

    def reference(self, row: Row) -> str:
        return str(row["answer"])

    def answer(self, completion: str) -> str | None:
        """The last number written in digits."""
        numbers = _NUMBER.findall(completion)
        return numbers[-1].rstrip(",") if numbers else None

    @cached_property
    def _held_out_pairs(self) -> frozenset[tuple[int, int]]:
        wanted = round(self.held_out_share * len(PAIRS))
        left = [a + b for a, b in PAIRS]
        held_out: set[tuple[int, int]] = set()
        for index in np.random.default_rng(self.seed).permutation(len(PAIRS)):
            pair = PAIRS[index]
            if len(held_out) < wanted and pair != EXAMPLE_PAIR and left.count(sum(pair)) > 1:
                left.remove(sum(pair))
                held_out.add(pair)
        return frozenset(held_out)

    def _rows(self, part: str, pairs: list[tuple[int, int]]) -> Rows:
        ordered = sorted({order for a, b in pairs for order in ((a, b), (b, a))})
        shown = WORKED_EXAMPLE if self.worked_example else []
        return task_rows(self.name, part, [{"prompt": [*shown, question(a, b)], "answer": a + b} for a, b in ordered])


def question(a: int, b: int) -> dict[str, str]:
    """The user message that poses a sum of two numbers."""
    words = f"{NUMBER_WORDS[a]} plus {NUMBER_WORDS[b]}"
    return {"role": "user", "content": f"What is {words}? Answer with the number only, in digits."}


PAIRS = tuple(combinations_with_replacement(range(10), 2))
EXAMPLE_PAIR = (1, 2)
WORKED_EXAMPLE = [question(2, 1), {"role": "assistant", "content": "2 + 1 = 3"}]
