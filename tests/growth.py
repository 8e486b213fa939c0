"""How time grows with the size of an input: for what a hostile completion must not make slow."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

NEGLIGIBLE_S = 0.01
"""Less than this is not measured against: it would be the clock's noise."""


def growth(
    make: Callable[[int], T],
    act: Callable[[T], object],
    size: int,
    *,
    clock: Callable[[], float] = time.thread_time,
    attempts: int = 3,
) -> float:
    """How many times as long ``act(make(size))`` takes as ``act(make(size // 4))``.

    Linear work gives about 4, quadratic work 16. The least of some attempts counts, for other work on the machine only
    adds, and `NEGLIGIBLE_S` is the least that the smaller input is said to take. ``clock`` counts this thread's own
    processor time; give ``time.perf_counter`` where another process does the work.
    """

    def least(size: int) -> float:
        made = make(size)
        taken = []
        for _ in range(attempts):
            started = clock()
            act(made)
            taken.append(clock() - started)
        return min(taken)

    return least(size) / max(least(size // 4), NEGLIGIBLE_S)
