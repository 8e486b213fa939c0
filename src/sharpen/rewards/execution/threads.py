"""Daemon threads, which do not delay process exit, and the limit on stuck ones."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from threading import Lock, Thread

import torch

from sharpen.errors import RewardError

MAX_STUCK = 8
"""Threads that may be stuck in a call at the same time before the run stops. Python cannot kill a thread."""

_stuck: list[Thread] = []
_stuck_lock = Lock()


def start_thread(work: Callable[[], None], name: str) -> Thread:
    """Run ``work`` in a daemon thread with the context variables and gradient mode of the current thread.

    torch's gradient mode is per thread; its default dtype and number of threads are global.
    """
    context, grad = contextvars.copy_context(), torch.is_grad_enabled()

    def run() -> None:
        with torch.set_grad_enabled(grad):
            context.run(work)

    thread = Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


def note_stuck(thread: Thread, call: str) -> None:
    """Count a thread stuck in ``call``. Raises `RewardError` if more than `MAX_STUCK` stuck threads are alive."""
    with _stuck_lock:
        _stuck[:] = [t for t in _stuck if t.is_alive()]
        _stuck.append(thread)
        count = len(_stuck)
    if count > MAX_STUCK:
        raise RewardError(
            f"{count} calls are stuck beyond their time limit, the last of them {call}. A thread cannot be killed: "
            "correct the function. A reward with `call.process: true` is called in a process, which can be killed"
        )
