"""Calls a user's function in separate processes, which can be killed."""

from __future__ import annotations

import functools
import json
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sharpen.errors import RewardError
from sharpen.runs.trajectories import trajectory_to_json
from sharpen.system.user_code import RemoteError
from sharpen.system.workers import Worker
from sharpen.types import Row, Trajectory

_SCRIPT = Path(__file__).with_name("process_program.py")


class ProcessFunction:
    """Calls the function ``module:function`` in another process. Thread-safe.

    Each concurrent call uses its own process, which starts at its first call and is reused for later ones. Arguments
    are sent as JSON, a `Trajectory` among the keywords too. `inspect.signature` and `getattr` see the function itself.

    Raises `TimeoutError` and kills the process if a call takes longer than ``timeout_s``; `RemoteError` if the function
    raises; `RewardError` for an argument that JSON cannot represent.
    """

    def __init__(self, named: str, function: Callable[..., Any], timeout_s: float) -> None:
        functools.update_wrapper(self, function)
        self._named = named
        self._timeout_s = timeout_s
        self._idle: deque[Worker] = deque()
        self._workers: list[Worker] = []
        weakref.finalize(self, _end, self._workers)

    def check_row(self, row: Row) -> None:
        """Raises ValueError for a column that cannot be given to another process."""
        for name, value in row.items():
            try:
                json.dumps(value)
            except (TypeError, ValueError) as error:
                raise ValueError(f"the column {name!r} cannot be given to another process: {error}") from error

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        trajectories = [name for name, value in keywords.items() if isinstance(value, Trajectory)]
        keywords |= {name: trajectory_to_json(keywords[name]) for name in trajectories}
        for name, value in [*((f"argument {i}", value) for i, value in enumerate(arguments, 1)), *keywords.items()]:
            try:
                json.dumps(value)
            except (TypeError, ValueError) as error:
                raise RewardError(f"{name!r} cannot be given to a function in another process: {error}") from error
        request = {
            "function": self._named,
            "arguments": arguments,
            "keywords": keywords,
            "trajectories": trajectories,
            "timeout_s": self._timeout_s,
        }
        worker = self._take()
        try:
            reply = worker.ask(request, self._timeout_s)
        finally:
            self._idle.append(worker)
        if "raised" in reply:
            raise RemoteError(reply["raised"], frozenset(reply["kinds"]))
        if "unusable" in reply:
            # An instance of a class of that name: rejected just as the original value would be in this process.
            return type(reply["unusable"], (), {})()
        return reply["value"]

    def _take(self) -> Worker:
        try:
            return self._idle.pop()
        except IndexError:
            worker = Worker(_SCRIPT, whole_environment=True)
            self._workers.append(worker)
            return worker


def _end(workers: Sequence[Worker]) -> None:
    for worker in workers:
        worker.end()
