"""Signals that stop a run: Ctrl-C, SIGTERM from a scheduler, SIGHUP from a closed terminal."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from types import FrameType
from typing import Any, Protocol

Handler = Callable[[int, FrameType | None], Any]

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

SAY_WITHIN_S = 2.0
"""How long to wait for the terminal to show a message."""


class Stopped(KeyboardInterrupt):
    """A signal stopped the run; `exit_code` gives the shell's code for it, 128 plus the signal number."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


def exit_code(interrupt: KeyboardInterrupt) -> int:
    """The shell's exit code for this signal: 130 after Ctrl-C, 143 after SIGTERM, 129 after SIGHUP."""
    return 128 + (interrupt.signum if isinstance(interrupt, Stopped) else signal.SIGINT)


def pass_on(signum: int) -> None:
    """Re-raise a signal that stopped a run for its previous handler; without one, exit. SIGINT is not passed on."""
    if signum == signal.SIGINT:
        return
    if callable(signal.getsignal(signum)):
        signal.raise_signal(signum)
    else:
        raise SystemExit(128 + signum)


class Stoppable(Protocol):
    """A run that checks ``stop_requested`` after each step. While ``saving``, it is not killed."""

    stop_requested: bool
    saving: bool


@contextmanager
def stopped_at_once() -> Iterator[None]:
    """In this context a signal raises `Stopped` at once: there is no work to lose yet."""
    received: int | None = None

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal received
        # `timeout`, shells and schedulers may send a signal twice; the second must not interrupt the clean-up.
        if received is not None and signum != signal.SIGINT:
            return
        received = signum
        raise Stopped(signum)

    with _handled(dict.fromkeys(ENDING, stop)):
        try:
            yield
        except Exception as error:
            # Compiled code that a signal interrupts, such as pydantic's, may raise an error of its own instead.
            if received is None:
                raise
            raise Stopped(received) from error


@contextmanager
def stopped_after_step(
    run: Stoppable, *, grace_s: float | None, say: Callable[[str], None], how_to_continue: Callable[[], str]
) -> Iterator[Request]:
    """In this context a signal stops ``run`` after its current step.

    After SIGTERM or SIGHUP the step has ``grace_s`` seconds to finish, then the process exits; repeating these signals
    has no effect. A second Ctrl-C raises `Stopped`. ``how_to_continue`` returns the message that says where an
    interrupted run resumes from.
    """
    request = Request(run, grace_s, say, how_to_continue)
    with _handled({**dict.fromkeys(ENDING, request.receive), signal.SIGALRM: request.note_alarm}):
        watching = threading.Thread(target=request.watch, name="signals", daemon=True)
        watching.start()
        try:
            yield request
        finally:
            request.notes.put(None)
            watching.join(2 * SAY_WITHIN_S)


class Request:
    """The first signal that requested a stop, and the grace period.

    A handler may interrupt anything, even a write to the terminal, so it only queues the signal. A thread, which also
    runs while the main thread computes, prints the messages and exits the process when the grace period is over.
    """

    def __init__(
        self, run: Stoppable, grace_s: float | None, say: Callable[[str], None], how_to_continue: Callable[[], str]
    ) -> None:
        self.signum: int | None = None
        # SimpleQueue is the only queue with a reentrant `put`, so a handler may interrupt another `put`.
        self.notes: SimpleQueue[int | None] = SimpleQueue()
        self._run, self._grace_s, self._say, self._how_to_continue = run, grace_s, say, how_to_continue

    def receive(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT and self._run.stop_requested:
            raise Stopped(signum)
        self.signum = self.signum or signum
        self._run.stop_requested = True
        self.notes.put(signum)

    def note_alarm(self, signum: int, frame: FrameType | None) -> None:
        # The default action of SIGALRM kills the process.
        self.notes.put(signum)

    def watch(self) -> None:
        heard: set[int] = set()
        ends_s: float | None = None
        while True:
            try:
                signum = self.notes.get(timeout=None if ends_s is None else max(0.0, ends_s - time.monotonic()))
            except Empty:
                if not self._run.saving:
                    self._end()
                ends_s = None
                continue
            if signum is None:
                return
            if signum in heard:
                continue
            heard.add(signum)
            if signum in (signal.SIGTERM, signal.SIGHUP) and ends_s is None and self._grace_s is not None:
                ends_s = time.monotonic() + self._grace_s
            self._tell(self._answer(signum))

    def _answer(self, signum: int) -> str:
        if signum == signal.SIGALRM:
            return (
                "a reward set an alarm (signal.alarm), which is not answered in the training process: its time limit "
                "is call.timeout_s, and with call.process it has a process of its own"
            )
        if signum == signal.SIGINT:
            return "stopping after this step, with a checkpoint; Ctrl-C again stops at once"
        within = "" if self._grace_s is None else f", if it ends within {self._grace_s:g} s (checkpoint.grace_s)"
        return f"{signal.Signals(signum).name}: stopping after this step, with a checkpoint{within}"

    def _end(self) -> None:
        assert self.signum is not None
        self._tell(
            f"{signal.Signals(self.signum).name}: this step did not end within {self._grace_s:g} s "
            f"(checkpoint.grace_s), stopped at once; {self._how_to_continue()}"
        )
        os._exit(128 + self.signum)

    def _tell(self, text: str) -> None:
        # A paused terminal (Ctrl-S) or a pipe without a reader would block this thread.
        saying = threading.Thread(target=self._say, args=(text,), daemon=True)
        saying.start()
        saying.join(SAY_WITHIN_S)


@contextmanager
def _handled(handlers: Mapping[signal.Signals, Handler]) -> Iterator[None]:
    """Install these handlers, and restore the previous ones on exit. A no-op outside the main thread.

    Ignored signals stay ignored, as ``nohup`` needs for SIGHUP, except SIGINT, which is always handled. SIGALRM is
    handled only if it has no handler yet.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in handlers}
    taken = [signum for signum in handlers if _may_take(signum, before[signum])]
    for signum in taken:
        signal.signal(signum, handlers[signum])
    try:
        yield
    finally:
        for signum in taken:
            signal.signal(signum, before[signum])


def _may_take(signum: signal.Signals, before: Any) -> bool:
    if before is None:  # not installed from Python, so it cannot be restored
        return False
    if signum == signal.SIGALRM:
        return bool(before == signal.SIG_DFL)
    return signum == signal.SIGINT or bool(before != signal.SIG_IGN)
