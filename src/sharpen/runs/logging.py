"""The loggers of a run while it runs: what fails in one is said, and never ends the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from sharpen.runs.folder import RunFolder
from sharpen.runs.loggers import LoggedRun, MetricLogger
from sharpen.runs.named_loggers import NamedLogger
from sharpen.system.call_thread import CallThread
from sharpen.system.user_code import describe, undisturbed

TIMEOUT_S = 60.0
"""How long the run waits for a logger that a recipe names to start, to log a step or to close."""
MOST_FAILURES = 3
"""After so many in a row a logger is left out."""

Say = Callable[[str], None]


class Loggers:
    """Calls loggers: objects, and `NamedLogger`s, which are made when the run starts.

    A failure is told to ``say`` with its error. Objects are called in the thread of the run, to which they belong, and
    before the others. Each named logger has a thread of its own, so that one that hangs for `TIMEOUT_S` has failed.
    """

    def __init__(self, loggers: Sequence[NamedLogger | MetricLogger], say: Say) -> None:
        self._named: list[tuple[NamedLogger, _Guarded]] = []
        self._threads: list[CallThread] = []
        self._all: list[_Guarded] = []
        for logger in loggers:
            if isinstance(logger, NamedLogger):
                thread = CallThread(f"logger {logger.name}")
                self._threads.append(thread)
                self._named.append((logger, _Guarded(logger.name, say, partial(_call_aside, thread))))
            else:
                self._all.append(_Guarded(type(logger).__name__, say, _call_here, logger))
        self._all += [guarded for _, guarded in self._named]

    def start(self, folder: RunFolder, config: Mapping[str, Any], last_step: int | None) -> None:
        """Make the named loggers; see `LoggedRun`. One that cannot be made is tried again when it is to log."""
        if not self._named:
            return
        run = LoggedRun(folder.path, folder.path.name, config, folder.logging_id(), last_step)
        for logger, guarded in self._named:
            guarded.start(partial(logger.make, run))

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for logger in self._all:
            # A copy each, so that a logger's changes reach neither the others nor the run.
            logger.log(step, dict(metrics))

    def close(self) -> None:
        for logger in self._all:
            logger.close()
        for thread in self._threads:
            thread.end()


class _Guarded:
    """A logger whose failures are said; it is left out after `MOST_FAILURES` in a row. ``call`` says what it raised."""

    def __init__(
        self, name: str, say: Say, call: Callable[[Callable[[], object]], BaseException | None], logger: Any = None
    ) -> None:
        self.name = name
        self._say, self._call = say, call
        self._logger: MetricLogger | None = logger
        self._make: Callable[[], MetricLogger] | None = None
        self._failures = 0

    def start(self, make: Callable[[], MetricLogger]) -> None:
        self._make = make
        self._ready()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._failures < MOST_FAILURES and self._ready() and (logger := self._logger) is not None:
            # Within the attempt, as is finding the method: it may be a property.
            self._attempt(f"log of step {step}", lambda: logger.log(step, metrics))

    def close(self) -> None:
        """Close it, even if it was left out: what it has may not be written yet."""
        if (logger := self._logger) is not None:
            self._attempt("close", lambda: logger.close())

    def _ready(self) -> bool:
        """Whether it is made; made now, if it is not."""
        return self._logger is not None or (self._make is not None and self._attempt("start", self._set))

    def _set(self) -> None:
        assert self._make is not None
        self._logger = self._make()

    def _attempt(self, doing: str, function: Callable[[], object]) -> bool:
        error = self._call(function)
        if error is None:
            self._failures = 0
            return True
        self._failures += 1
        if self._failures <= MOST_FAILURES:
            # A TimeoutError of our own was never raised.
            said = describe(error) if error.__traceback__ is not None else str(error)
            self._say(f"logger {self.name}: {doing} failed: {said}")
        if self._failures == MOST_FAILURES:
            self._say(f"logger {self.name}: left out after {MOST_FAILURES} failures in a row; metrics.jsonl goes on")
        return False


def _call_here(function: Callable[[], object]) -> BaseException | None:
    """What the call raised. Ctrl-C, which may come meanwhile, is raised here."""
    try:
        with undisturbed():
            function()
    except KeyboardInterrupt:
        raise
    # A logger's `sys.exit` does not end the run either.
    except BaseException as error:  # noqa: BLE001
        return error
    return None


def _call_aside(thread: CallThread, function: Callable[[], object]) -> BaseException | None:
    """What the call raised in the thread, or a TimeoutError."""
    # Undone here: one that comes back late must not change the folder that the program is in by then.
    with undisturbed():
        return thread.call(function, TIMEOUT_S)
