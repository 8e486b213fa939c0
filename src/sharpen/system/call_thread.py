"""Calls that may hang, made in a thread that can be left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue


class _Call:
    """A call and, once it is ``done``, what it raised."""

    def __init__(self, function: Callable[[], object]) -> None:
        self.function = function
        self.raised: BaseException | None = None
        self.done = threading.Event()

    def make(self) -> None:
        try:
            self.function()
        # Whatever the user's code raises is for the caller to judge.
        except BaseException as error:  # noqa: BLE001
            self.raised = error
        self.done.set()


class CallThread:
    """Makes one call after another in a thread of its own, which does not keep the program alive.

    What belongs to a thread, such as a connection to a database, is thus used by all calls alike.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._last: _Call | None = None

    @property
    def hangs(self) -> bool:
        """Whether a call has not come back; the thread can make no other."""
        return self._last is not None and not self._last.done.is_set()

    def call(self, function: Callable[[], object], timeout_s: float) -> BaseException | None:
        """What the call raised, or None; a TimeoutError if it, or an earlier one, has not come back.

        Nothing of it is raised here: a KeyboardInterrupt that the call raises is not the user's Ctrl-C.
        """
        if self.hangs:
            return TimeoutError("an earlier call has not come back")
        if self._last is None:
            threading.Thread(target=self._work, name=self._name, daemon=True).start()
        self._last = call = _Call(function)
        self._calls.put(call)
        if not call.done.wait(timeout_s):
            return TimeoutError(f"it did not come back within {timeout_s:g} s")
        return call.raised

    def end(self) -> None:
        """End the thread, once a call that hangs has come back."""
        self._calls.put(None)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            call.make()
