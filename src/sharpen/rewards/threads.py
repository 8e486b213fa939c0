"""Threads that the end of the process does not wait for, and jobs that run side by side in them."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Condition, Event, Thread
from typing import Generic, TypeVar

import torch

Result = TypeVar("Result")

HERE = "models"
"""The lane whose jobs run in the thread that asks for them."""

_NEVER = Event()
given_up: ContextVar[Event] = ContextVar("given_up", default=_NEVER)
"""Set where nobody waits for the result any more: what runs in a thread then begins nothing new."""

in_place: ContextVar[bool] = ContextVar("in_place", default=False)


@contextmanager
def in_this_thread() -> Iterator[None]:
    """Here jobs and calls run one after another in the thread that asks, which has its own way to end them."""
    token = in_place.set(True)
    try:
        yield
    finally:
        in_place.reset(token)


def start_thread(work: Callable[[], None], name: str) -> Thread:
    """Runs ``work`` in a daemon thread that sees the context variables and the gradient mode of this one.

    torch keeps its default type and number of threads for the whole process, but the gradient mode for each thread.
    """
    context, grad = contextvars.copy_context(), torch.is_grad_enabled()

    def run() -> None:
        with torch.set_grad_enabled(grad):
            context.run(work)

    thread = Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def side_by_side(jobs: Sequence[tuple[Hashable, Callable[[], Result]]]) -> list[Result]:
    """The results of jobs, each given with its lane: those of one lane run one after another, in their order.

    The lane ``HERE`` runs in the calling thread (the first one, if there is none of that name), each other in a thread
    of its own. All lanes are waited for; of the exceptions, that of the first job is raised again, whichever came
    first in time. What is no `Exception`, such as an interrupt, is raised at once, and what then still runs begins
    nothing new.
    """
    if in_place.get():
        return [job() for _, job in jobs]
    lanes: dict[Hashable, list[int]] = {}
    for place, (lane, _) in enumerate(jobs):
        lanes.setdefault(lane, []).append(place)
    own = lanes.pop(HERE if HERE in lanes else next(iter(lanes), HERE), [])
    running = _Running([job for _, job in jobs], len(lanes) + 1)
    token = given_up.set(running.given_up)
    try:
        for lane, places in lanes.items():
            start_thread(lambda places=places: running.work(places), f"reward lane {lane}")  # type: ignore[misc]
        running.work(own)
        return running.wait()
    except BaseException:
        running.given_up.set()
        raise
    finally:
        given_up.reset(token)


class _Running(Generic[Result]):
    """Jobs of several lanes on their way."""

    def __init__(self, jobs: Sequence[Callable[[], Result]], lanes: int) -> None:
        self.given_up = Event()
        self._jobs = jobs
        self._results: dict[int, Result] = {}
        self._raised: dict[int, BaseException] = {}
        self._left = lanes
        self._changed = Condition()

    def work(self, places: Sequence[int]) -> None:
        """The jobs of one lane, up to one that raises."""
        for place in places:
            try:
                self._results[place] = self._jobs[place]()
            except BaseException as error:  # noqa: BLE001  raised again where the results are waited for
                self._raised[place] = error
                if not isinstance(error, Exception):
                    self.given_up.set()
                break
        with self._changed:
            self._left -= 1
            self._changed.notify()

    def wait(self) -> list[Result]:
        with self._changed:
            while self._left and not self.given_up.is_set():
                self._changed.wait()
        if self._raised:
            raise min(self._raised.items(), key=lambda raised: (isinstance(raised[1], Exception), raised[0]))[1]
        return [self._results[place] for place in range(len(self._jobs))]
