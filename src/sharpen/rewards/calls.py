"""The calls of a reward function: off the training thread, side by side, with a time limit and further attempts."""

from __future__ import annotations

import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Condition, Lock, Thread
from typing import NamedTuple

from pydantic import Field

from sharpen.errors import RewardError
from sharpen.rewards.named_function import FunctionError
from sharpen.rewards.threads import given_up, in_place, start_thread
from sharpen.settings import Settings

MAX_STUCK = 8
"""Calls that may be stuck in threads of this process, which nothing can end, before the run stops."""

HIRING_S = 0.005
"""What one thread does within this time, threads beside it would only hold up."""

LONGEST_WAIT_S = 3600.0


class CallSettings(Settings):
    """How a reward function is called."""

    timeout_s: float = Field(60.0, gt=0)
    """The longest that one call may take; the sample of a longer one has failed."""
    retries: int = Field(0, ge=0)
    """Further attempts where a call raises an error that `retry_on` names."""
    backoff_s: float = Field(1.0, ge=0)
    """The pause before the first further attempt; each later pause is twice as long."""
    retry_on: tuple[str, ...] = ("ConnectionError", "TimeoutError")
    """Names of exceptions, or of their bases. A call that was stopped at `timeout_s` counts as TimeoutError with
    `process`, and is not repeated without: it still runs."""
    at_once: int | None = Field(None, ge=1)
    """Calls that may run at the same time; null: what the function's attribute `at_once` says, else 1."""
    lane: str | None = Field(None, min_length=1)
    """Rewards of the same lane never run at the same time; that of the trained models is called `models`."""
    process: bool = False
    """Call the function in a process of its own, which is ended when a call takes too long."""


class Called(NamedTuple):
    """What came of a call: a value, or why there is none; and how often it was repeated."""

    value: object = None
    error: str | None = None
    timed_out: bool = False
    retries: int = 0


class Calls:
    """One call for each of several samples, by worker threads that take one sample after another.

    A call that does not end within ``timeout_s`` is given up: its sample has failed, its thread is left to itself, and
    another goes on with the other samples. Nothing can end a thread, so that with more than `MAX_STUCK` of them stuck
    the calls end with a `RewardError`. A call that ends, but late, has failed alike. Whatever the function raises is
    recorded, `SystemExit` and a `KeyboardInterrupt` of its own too.
    """

    def __init__(
        self,
        name: str,
        call: Callable[[int], object],
        settings: CallSettings,
        *,
        at_once: int,
        sample: Callable[[int], str],
    ) -> None:
        self._name = name
        self._call = call
        self._settings = settings
        # A process has the time limit, and is ended by it.
        self._limit_s = float("inf") if settings.process else settings.timeout_s
        self._at_once = at_once
        self._sample = sample
        self._todo: deque[int] = deque()
        self._done: dict[int, Called] = {}
        self._workers: list[_Worker] = []
        self._fatal: BaseException | None = None
        self._lock = Lock()
        self._changed = Condition(self._lock)
        self._given_up = given_up.get()

    def all(self, samples: Sequence[int]) -> dict[int, Called]:
        """What came of the call of each sample. Raises `RewardError` where too many are stuck."""
        if in_place.get():
            return {sample: self._attempts(_Worker(), sample) for sample in samples}
        self._todo.extend(samples)
        with self._changed:
            try:
                if samples:
                    self._hire()
                if self._at_once > 1:
                    self._changed.wait(HIRING_S)
                more = self._at_once - 1 if self._fatal is None else 0
                for _ in range(min(more, len(self._todo))):
                    self._hire()
                while len(self._done) < len(samples) and self._fatal is None and not self._given_up.is_set():
                    self._changed.wait(self._patience_s())
                    self._abandon_late()
            finally:
                # Whatever ends the waiting, an interrupt for one, no further call begins.
                self._todo.clear()
        if self._fatal is not None:
            raise self._fatal
        return self._done

    def _hire(self) -> None:
        worker = _Worker()
        self._workers.append(worker)
        worker.thread = start_thread(lambda: self._work(worker), f"reward {self._name}")

    def _work(self, worker: _Worker) -> None:
        called: Called | None = None
        while True:
            with self._lock:
                if worker.abandoned:
                    return
                if called is not None and worker.sample is not None:
                    self._done[worker.sample] = called
                worker.sample, worker.since_s, worker.retries = None, None, 0
                if not self._todo or self._given_up.is_set():
                    self._changed.notify()
                    return
                worker.sample, worker.since_s = self._todo.popleft(), time.monotonic()
                sample = worker.sample
            try:
                called = self._attempts(worker, sample)
            except BaseException as error:  # noqa: BLE001  a fault of ours: raised by the one who waits
                with self._changed:
                    self._fatal = error
                    self._changed.notify()
                return

    def _attempts(self, worker: _Worker, sample: int) -> Called:
        settings = self._settings
        for attempt in range(settings.retries + 1):
            if attempt:
                self._pause(worker, settings.backoff_s * 2 ** (attempt - 1))
            started_s = time.monotonic()
            try:
                value = self._call(sample)
            # The user's code may raise anything, SystemExit too; one bad sample must not end a run.
            except BaseException as error:
                # A signal, and with it a real Ctrl-C, is raised in the main thread and there alone.
                if in_place.get() and isinstance(error, KeyboardInterrupt):
                    raise
                kinds = kinds_of(error)
                again = attempt < settings.retries and not worker.abandoned and not self._given_up.is_set()
                if again and not kinds.isdisjoint(settings.retry_on):
                    continue
                error_text = f"{self._name} raised {describe(error)}"
                return Called(error=error_text, timed_out="TimeoutError" in kinds, retries=attempt)
            if time.monotonic() - started_s > self._limit_s:
                return self._late(attempt)
            return Called(value, retries=attempt)
        raise AssertionError("the last attempt ends in one way or the other")

    def _pause(self, worker: _Worker, seconds: float) -> None:
        with self._changed:
            worker.since_s = None
        time.sleep(seconds)
        with self._changed:
            worker.since_s = time.monotonic()
            worker.retries += 1
            # The one who waits may have reckoned without this call.
            self._changed.notify()

    def _patience_s(self) -> float:
        """How long nothing can be late: a call that has not begun yet cannot be so before one that begins now."""
        now_s = time.monotonic()
        ends_s = [self._limit_s + (now_s if w.since_s is None else w.since_s) for w in self._workers]
        return min(LONGEST_WAIT_S, max(0.0, min(ends_s, default=now_s + LONGEST_WAIT_S) - now_s))

    def _abandon_late(self) -> None:
        now_s = time.monotonic()
        for worker in [w for w in self._workers if w.since_s is not None and now_s - w.since_s >= self._limit_s]:
            assert worker.sample is not None
            assert worker.thread is not None
            worker.abandoned = True
            self._workers.remove(worker)
            self._done[worker.sample] = self._late(worker.retries)
            note_stuck(worker.thread, f"{self._name} for {self._sample(worker.sample)}")
            if self._todo:
                self._hire()

    def _late(self, retries: int) -> Called:
        error = f"{self._name} gave no value within {self._settings.timeout_s:g} s"
        return Called(error=error, timed_out=True, retries=retries)


class _Worker:
    """A thread that makes calls. ``since_s`` is when its present call began, None where it is in none."""

    __slots__ = ("abandoned", "retries", "sample", "since_s", "thread")

    def __init__(self) -> None:
        self.thread: Thread | None = None
        self.sample: int | None = None
        self.since_s: float | None = None
        self.retries = 0
        self.abandoned = False


_stuck: list[Thread] = []
_stuck_lock = Lock()


def note_stuck(thread: Thread, what: str) -> None:
    """Counts a thread that is given up. Raises `RewardError` if more than `MAX_STUCK` of them still run."""
    with _stuck_lock:
        _stuck[:] = [t for t in _stuck if t.is_alive()]
        _stuck.append(thread)
        count = len(_stuck)
    if count > MAX_STUCK:
        raise RewardError(
            f"{count} calls of reward functions are stuck beyond their time limit, the last of them {what}. A call "
            "cannot be ended within this process: correct the function, or set `call.process` to true, for a process "
            "that can be ended"
        )


def kinds_of(error: BaseException) -> frozenset[str]:
    """The names of an exception's class and of its bases."""
    if isinstance(error, FunctionError):
        return error.kinds
    return frozenset(kind.__name__ for kind in type(error).__mro__)


def describe(error: BaseException) -> str:
    """An exception's name and message, and where it was raised."""
    if isinstance(error, FunctionError):
        return str(error)
    try:
        text = str(error)
    # The exception's class may be the user's own.
    except Exception:  # noqa: BLE001
        text = "(its text cannot be made)"
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} ({Path(last.filename).name}, line {last.lineno})"
