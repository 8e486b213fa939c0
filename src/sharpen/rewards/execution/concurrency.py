"""Runs jobs concurrently, except those of the same concurrency group."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from queue import SimpleQueue
from threading import Event
from typing import TypeVar

from sharpen.rewards.execution.threads import start_thread

Result = TypeVar("Result")

CALLING_THREAD = "models"
"""The concurrency group whose jobs run in the calling thread."""

cancelled: ContextVar[Event] = ContextVar("cancelled", default=Event())  # noqa: B039  the default is never set
"""Set once the results are no longer needed: no new job or call starts after that."""

sequential: ContextVar[bool] = ContextVar("sequential", default=False)


@contextmanager
def run_sequentially() -> Iterator[None]:
    """Within this context jobs and calls run sequentially in the calling thread, which has its own time limit."""
    token = sequential.set(True)
    try:
        yield
    finally:
        sequential.reset(token)


def run_concurrently(jobs: Sequence[tuple[Hashable, Callable[[], Result]]]) -> list[Result]:
    """The results of (concurrency group, job) pairs. Jobs of the same group run sequentially, in order.

    The group `CALLING_THREAD`, or the first group if there is none of that name, runs in the calling thread, every
    other group in its own thread. An `Exception` ends its group; once all groups have ended, the exception of the job
    that comes first in ``jobs`` is raised, regardless of timing. Any other exception, such as an interrupt, is raised
    at once, and the groups still running start no new jobs.
    """
    if sequential.get():
        return [job() for _, job in jobs]
    groups: dict[Hashable, list[int]] = {}
    for index, (group, _) in enumerate(jobs):
        groups.setdefault(group, []).append(index)
    own = groups.pop(CALLING_THREAD if CALLING_THREAD in groups else next(iter(groups), CALLING_THREAD), [])
    results: dict[int, Result] = {}
    errors: dict[int, BaseException] = {}
    ended: SimpleQueue[None] = SimpleQueue()

    def run(indices: Sequence[int]) -> None:
        for index in indices:
            try:
                results[index] = jobs[index][1]()
            except BaseException as error:  # noqa: BLE001  raised again in the calling thread
                errors[index] = error
                break
        ended.put(None)

    stop = Event()
    token = cancelled.set(stop)
    try:
        for group, indices in groups.items():
            start_thread(partial(run, indices), f"reward group {group}")
        run(own)
        for _ in range(len(groups) + 1):
            if not all(isinstance(error, Exception) for error in list(errors.values())):
                break
            ended.get()
        if errors:
            raise min(errors.items(), key=lambda item: (isinstance(item[1], Exception), item[0]))[1]
        return [results[index] for index in range(len(jobs))]
    except BaseException:
        stop.set()
        raise
    finally:
        cancelled.reset(token)
