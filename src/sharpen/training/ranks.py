"""The learners of a run that train one model together, each on its share of every step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class Ranks(Protocol):
    """Learner ``rank`` of ``count``. Every rank makes the same calls, in the same order."""

    rank: int
    count: int

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over the ranks, in place."""
        ...

    def join(self, tensor: Tensor) -> Tensor:
        """The tensors of all ranks, one after another along the first axis."""
        ...


class OneRank:
    """The only learner."""

    rank, count = 0, 1

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        return

    def join(self, tensor: Tensor) -> Tensor:
        return tensor
