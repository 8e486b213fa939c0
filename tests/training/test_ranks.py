"""Several learners, each on its share of every step, train as one does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar

import pytest
import torch
from torch import Tensor

from sharpen.training.ranks import Ranks
from trajectory_steps import WHOLE, assert_same, float64
from trajectory_variants import BOUND, CUT, CUTS, formula, learned

__all__ = ["float64"]

T = TypeVar("T")
WAIT_S = 20.0


class Together:
    """What the ranks, each in a thread of its own, show each other: every one makes the same calls."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.barrier = Barrier(count, timeout=WAIT_S)
        self.shown: list[Any] = [None] * count

    def exchange(self, rank: int, call: str, value: T) -> list[T]:
        self.shown[rank] = call, value
        self.barrier.wait()
        calls, values = zip(*self.shown, strict=True)
        assert len(set(calls)) == 1, f"the ranks make different calls: {calls}"
        self.barrier.wait()
        return list(values)


class ThreadRank:
    def __init__(self, rank: int, together: Together) -> None:
        self.rank, self.count, self.together = rank, together.count, together

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        shapes = [tuple(tensor.shape) for tensor in tensors]
        every = self.together.exchange(self.rank, f"sum {shapes}", [tensor.clone() for tensor in tensors])
        for tensor, *parts in zip(tensors, *every, strict=True):
            tensor.copy_(torch.stack(parts).sum(dim=0))

    def join(self, tensor: Tensor) -> Tensor:
        return torch.cat(self.together.exchange(self.rank, "join", tensor))


def on_each(count: int, work: Callable[[Ranks], T]) -> list[T]:
    together = Together(count)

    def one(rank: int) -> T:
        try:
            return work(ThreadRank(rank, together))
        except BaseException:
            together.barrier.abort()
            raise

    with ThreadPoolExecutor(count) as pool:
        return [future.result(WAIT_S) for future in [pool.submit(one, rank) for rank in range(count)]]


@pytest.mark.parametrize("name", CUT)
def test_two_learners_have_the_gradient_of_one(name: str) -> None:
    wanted = formula(name)
    for done in on_each(2, lambda rank: learned(name, CUTS[2], ranks=rank)):
        assert_same(done, wanted, BOUND)


@pytest.mark.parametrize("name", CUT)
def test_a_learner_with_nothing_to_do_changes_nothing(name: str) -> None:
    wanted, alone = formula(name), learned(name, WHOLE)
    for done in on_each(2, lambda rank: learned(name, WHOLE, ranks=rank)):
        assert_same(done, wanted, BOUND)
        assert done.report is not None
        assert alone.report is not None
        assert done.report.metrics == pytest.approx(alone.report.metrics, rel=1e-9, abs=1e-12)
