"""Calls of a reward function in worker threads, with a time limit and retries."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from threading import Condition, Thread
from typing import NamedTuple

from sharpen.rewards.execution.concurrency import cancelled, sequential
from sharpen.rewards.execution.event_loop import CoroutineTimeoutError
from sharpen.rewards.execution.settings import CallSettings
from sharpen.rewards.execution.threads import note_stuck, start_thread
from sharpen.system.user_code import describe, kinds_of

MORE_WORKERS_AFTER_S = 0.005
"""If one thread finishes all calls within this time, no further threads are started."""

LONGEST_WAIT_S = 3600.0


class CallResult(NamedTuple):
    """The value of a call or the error it failed with, and the number of retries."""

    value: object = None
    error: str | None = None
    timed_out: bool = False
    retries: int = 0


class Calls:
    """Calls a function once per sample in up to ``at_once`` worker threads, which share a queue of samples.

    A call that exceeds ``limit_s`` is abandoned: its sample fails, and a new thread replaces the blocked one, which
    cannot be killed. A call that returns late fails too. ``limit_s`` is infinite if the call enforces ``timeout_s``
    itself. Any exception of the function is recorded, including `SystemExit` and `KeyboardInterrupt`.
    """

    def __init__(
        self,
        name: str,
        call: Callable[[int], object],
        settings: CallSettings,
        *,
        at_once: int,
        limit_s: float,
        sample: Callable[[int], str],
    ) -> None:
        """``call`` gets the index of a sample; ``sample`` names it in messages."""
        self._name = name
        self._call = call
        self._settings = settings
        self._limit_s = limit_s
        self._at_once = at_once
        self._sample = sample
        self._queue: deque[int] = deque()
        self._results: dict[int, CallResult] = {}
        self._workers: list[_Worker] = []
        self._fatal: BaseException | None = None
        self._changed = Condition()
        self._cancelled = cancelled.get()

    def run(self, samples: Sequence[int]) -> dict[int, CallResult]:
        """The result of each sample. Raises `RewardError` if too many calls are stuck."""
        if sequential.get():
            return {sample: self._attempt(_Worker(), sample) for sample in samples}
        self._queue.extend(samples)
        with self._changed:
            try:
                if samples:
                    self._start_worker()
                if self._at_once > 1:
                    self._changed.wait(MORE_WORKERS_AFTER_S)
                more = self._at_once - 1 if self._fatal is None else 0
                for _ in range(min(more, len(self._queue))):
                    self._start_worker()
                while len(self._results) < len(samples) and self._fatal is None and not self._cancelled.is_set():
                    self._changed.wait(self._until_next_deadline_s())
                    self._abandon_overdue()
            finally:
                # Start no further calls, also after an interrupt.
                self._queue.clear()
        if self._fatal is not None:
            raise self._fatal
        return self._results

    def _start_worker(self) -> None:
        worker = _Worker()
        self._workers.append(worker)
        worker.thread = start_thread(lambda: self._work(worker), f"reward {self._name}")

    def _work(self, worker: _Worker) -> None:
        result: CallResult | None = None
        while True:
            with self._changed:
                if worker.abandoned:
                    return
                if result is not None and worker.sample is not None:
                    self._results[worker.sample] = result
                worker.sample, worker.deadline_s = None, math.inf
                if not self._queue or self._cancelled.is_set():
                    self._changed.notify()
                    return
                sample = worker.sample = self._queue.popleft()
            try:
                result = self._attempt(worker, sample)
            except BaseException as error:  # noqa: BLE001  not the function's: raised again in `run`
                with self._changed:
                    self._fatal = error
                    self._changed.notify()
                return

    def _attempt(self, worker: _Worker, sample: int) -> CallResult:
        settings = self._settings
        for attempt in range(settings.retries + 1):
            if attempt:
                time.sleep(settings.backoff_s * 2 ** (attempt - 1))
            started_s = time.monotonic()
            with self._changed:
                worker.retries, worker.deadline_s = attempt, started_s + self._limit_s
            try:
                value = self._call(sample)
            # User code may raise anything, SystemExit included; one bad sample must not end a run.
            except BaseException as error:
                # A real Ctrl-C is raised in the main thread only.
                if sequential.get() and isinstance(error, KeyboardInterrupt):
                    raise
                timed_out = isinstance(error, CoroutineTimeoutError)
                if isinstance(error, CoroutineTimeoutError) and error.stuck is not None:
                    note_stuck(error.stuck, f"{self._name} for {self._sample(sample)}")
                kinds = kinds_of(error)
                again = attempt < settings.retries and not kinds.isdisjoint(settings.retry_on)
                if again and self._may_retry(worker):
                    continue
                if timed_out:
                    return self._timed_out(attempt)
                error_text = f"{self._name} raised {describe(error)}"
                return CallResult(error=error_text, timed_out="TimeoutError" in kinds, retries=attempt)
            if time.monotonic() - started_s > self._limit_s:
                return self._timed_out(attempt)
            return CallResult(value, retries=attempt)
        raise AssertionError("the last attempt returns")

    def _may_retry(self, worker: _Worker) -> bool:
        with self._changed:
            worker.deadline_s = math.inf  # the pause does not count
            return not worker.abandoned and not self._cancelled.is_set()

    def _until_next_deadline_s(self) -> float:
        """Time until a call may be overdue: the next deadline, or `limit_s` for calls that have yet to start."""
        now_s = time.monotonic()
        return max(0.0, min(LONGEST_WAIT_S, self._limit_s, *(w.deadline_s - now_s for w in self._workers)))

    def _abandon_overdue(self) -> None:
        now_s = time.monotonic()
        for worker in [w for w in self._workers if w.deadline_s <= now_s]:
            assert worker.sample is not None
            assert worker.thread is not None
            worker.abandoned = True
            self._workers.remove(worker)
            self._results[worker.sample] = self._timed_out(worker.retries)
            note_stuck(worker.thread, f"{self._name} for {self._sample(worker.sample)}")
            if self._queue:
                self._start_worker()

    def _timed_out(self, retries: int) -> CallResult:
        error = f"{self._name} gave no value within {self._settings.timeout_s:g} s"
        return CallResult(error=error, timed_out=True, retries=retries)


@dataclass(eq=False, slots=True)
class _Worker:
    """A thread that makes calls. ``deadline_s`` applies to the current attempt and is infinite between attempts."""

    thread: Thread | None = None
    sample: int | None = None
    deadline_s: float = math.inf
    retries: int = 0
    abandoned: bool = False
