"""Ranks of learners as threads of one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar

import torch
from torch import Tensor

from sharpen.training.ranks import Ranks

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
