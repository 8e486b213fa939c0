"""How many waiting requests may join the running batch, given the memory for keys and values."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sharpen.rollout.local.model_runner import ModelRunner
from sharpen.rollout.local.request import UnfinishedRequest


def by_context(requests: Iterable[UnfinishedRequest]) -> list[list[UnfinishedRequest]]:
    """Requests that share a context together, in the order in which the first of each came."""
    shared: dict[tuple[int, tuple[int, ...]], list[UnfinishedRequest]] = {}
    for request in requests:
        shared.setdefault((request.group, request.context), []).append(request)
    return list(shared.values())


def admissible(waiting: Sequence[UnfinishedRequest], runner: ModelRunner, slots: int) -> int:
    """The most of the first ``waiting`` requests with which the cache stays within ``slots``, next token included."""

    def fits(count: int) -> bool:
        shared = by_context(waiting[:count])
        lengths, copies = [len(same[0].context) for same in shared], [len(same) for same in shared]
        return runner.slots_after_adding(lengths, copies, max(r.room for r in waiting[:count])) <= slots

    if not waiting or fits(len(waiting)):
        return len(waiting)
    low, high = 0, len(waiting)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
