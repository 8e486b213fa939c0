"""The event loop for async reward functions, in its own thread."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from threading import Event, Lock, Thread
from typing import Any

from sharpen.rewards.execution.threads import start_thread

BLOCKED_AFTER_S = 1.0
"""A loop that has not run a callback for this long is blocked by a coroutine that computes or waits without `await`."""


class CoroutineTimeoutError(TimeoutError):
    """A coroutine exceeded its time limit and was cancelled. ``stuck`` is the loop's thread if it was blocked."""

    def __init__(self, stuck: Thread | None) -> None:
        super().__init__()
        self.stuck = stuck


class _EventLoop:
    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.thread = start_thread(self.loop.run_forever, "async rewards")

    def blocked(self) -> bool:
        answered = Event()
        self.loop.call_soon_threadsafe(answered.set)
        return not answered.wait(BLOCKED_AFTER_S)


_lock = Lock()
_current: _EventLoop | None = None


def run_coroutine(coroutine: Coroutine[Any, Any, object], timeout_s: float) -> object:
    """Run ``coroutine`` on the event loop and block until its result is ready. Thread-safe.

    All coroutines share one loop for the lifetime of the process, so clients can keep connections open between calls.
    Raises what the coroutine raises, and `CoroutineTimeoutError` after ``timeout_s``. A loop that a coroutine blocks is
    replaced by a new one.
    """
    loop = _running_loop()
    future = asyncio.run_coroutine_threadsafe(_outcome(coroutine), loop.loop)
    try:
        value, error = future.result(timeout_s)
    except TimeoutError:
        future.cancel()
        raise CoroutineTimeoutError(loop.thread if loop.blocked() and _replace(loop) else None) from None
    except BaseException:
        future.cancel()
        raise
    if error is not None:
        raise error
    return value


async def _outcome(coroutine: Coroutine[Any, Any, object]) -> tuple[object, BaseException | None]:
    try:
        return await coroutine, None
    # SystemExit and KeyboardInterrupt would end the loop, and CancelledError would look like a cancelled call.
    except BaseException as error:  # noqa: BLE001
        return None, error


def _running_loop() -> _EventLoop:
    global _current
    with _lock:
        # A fork copies the object but not its thread.
        if _current is None or not _current.thread.is_alive():
            _current = _EventLoop()
        return _current


def _replace(loop: _EventLoop) -> bool:
    """Make the next call start a new loop. False if another thread has already done so."""
    global _current
    with _lock:
        if _current is not loop:
            return False
        _current = None
        return True
