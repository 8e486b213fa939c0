"""The worker program of `sharpen.rewards.execution.process.ProcessFunction`: calls functions by name.

Reads JSON lines ``{"function", "arguments", "keywords", "trajectories", "timeout_s"}`` from standard input, where
``trajectories`` names the keywords that are one, and answers each with one line: ``{"value"}``; ``{"unusable"}`` with
the type of a value that is not a number, None or a list of these; or ``{"raised", "kinds"}`` for an exception.
"""

from __future__ import annotations

import faulthandler
import inspect
import json
import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from operator import attrgetter
from typing import Any

from sharpen.runs.trajectories import trajectory_from_json
from sharpen.system.user_code import describe, kinds_of, load_source
from sharpen.system.worker_program import redirected_output


@lru_cache
def _named(function: str) -> Any:
    source, _, attribute = function.rpartition(":")
    return attrgetter(attribute)(load_source(source))


@lru_cache
def _runner() -> Any:
    """One event loop for all calls, so that clients can keep connections open."""
    import asyncio

    return asyncio.Runner()


def _reply(request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        keywords = request["keywords"]
        keywords |= {name: trajectory_from_json(keywords[name]) for name in request["trajectories"]}
        value = _named(request["function"])(*request["arguments"], **keywords)
        if inspect.iscoroutine(value):
            value = _runner().run(value)
        return {"value": _plain(value)}
    except _UnusableError as error:
        return {"unusable": str(error)}
    # User code may raise anything, SystemExit included; the calling process records it.
    except BaseException as error:  # noqa: BLE001
        return {"raised": describe(error), "kinds": sorted(kinds_of(error))}


class _UnusableError(Exception):
    """The type of a value that is not a number, None or a list of these."""


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # a numpy scalar, a tensor
        value = value.tolist()
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if not hasattr(value, "__float__"):
        raise _UnusableError(type(value).__name__)
    try:
        return float(value)
    except OverflowError:
        return float("inf")


def main() -> None:
    requests = os.fdopen(os.dup(sys.stdin.fileno()))
    replies = redirected_output()
    # A function that reads standard input must not consume requests.
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), sys.stdin.fileno())
    print(json.dumps({"ready": True}), file=replies)
    for line in requests:
        request = json.loads(line)
        # A call that hangs must not outlive a killed trainer. This watchdog needs neither a signal, which the function
        # may use, nor the GIL, which it may hold.
        faulthandler.dump_traceback_later(request["timeout_s"] + 1, file=sys.stderr, exit=True)
        reply = _reply(request)
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(reply), file=replies)


if __name__ == "__main__":
    main()
