"""Tests written as code, with the functions under test in another process.

The tests see only the candidate's return values, as plain data, and its exceptions, as builtin exception classes.
"""

from __future__ import annotations

import builtins
import os
import threading
from collections.abc import Callable
from typing import Any, NoReturn

from . import plain, wire
from .limits import Limits
from .programs import REPLIES_FD, REQUESTS_FD, RESULTS_FD, describe, execute, open_standard_streams, refusal, send

PASSED, FAILED, UNUSABLE = "passed", "failed", "unusable"

_CALLED_OFF = (StopIteration, StopAsyncIteration)
"""These would silently end a loop of the tests, such as `for x in map(candidate, ...)`."""


class CandidateError(Exception):
    """The candidate raised an exception of its own class, or returned a value that is not plain data."""


class CandidateEnded(BaseException):
    """The candidate is gone. The verdict is a failure even if a bare `except` in the tests catches this."""


class Link:
    """The tests' side of the connection."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._lock = threading.Lock()
        self.ended: str | None = None
        """Why the candidate can no longer pass."""
        self.unusable: str | None = None
        """Why these tests cannot be run here."""
        self._has_answered = False
        """Whether the candidate has: what the tests do from then on may be its doing."""

    def function(self, name: str) -> Callable[..., Any]:
        """A function that calls the candidate's function of that name."""

        def ask(*arguments: Any, **keywords: Any) -> Any:
            with self._lock:
                is_value, what = self._ask(name, arguments, keywords)
            if is_value is True:
                return what
            raise self._exception(what)

        ask.__name__ = ask.__qualname__ = name.split(".")[-1]
        return ask

    def _ask(self, name: str, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> tuple[Any, Any]:
        try:
            request = plain.encode([name, list(arguments), keywords])
        except plain.NotPlain as error:
            why = f"they call {name} with an argument that is not plain data: {error}"
            if self._has_answered:
                self._end(f"after the candidate's answers, {why}")
            self.unusable = why
            raise CandidateEnded from None
        if self.ended is not None:
            raise CandidateEnded
        try:
            send(REQUESTS_FD, request)
            reply = wire.read_frame(lambda size: os.read(REPLIES_FD, size), self._limit_bytes)
            self._has_answered = True
            is_value, what = plain.decode(reply)
        except (wire.Cut, BrokenPipeError):
            self._end("the candidate's process ended")
        except plain.TooCostly as error:
            return False, refusal(error)
        except (ValueError, TypeError) as error:  # NotPlain is a ValueError
            self._end(f"the candidate's process sent no valid answer: {error}")
        return is_value, what

    def _exception(self, said: Any) -> BaseException:
        try:
            message, arguments, classes = str(said["message"]), list(said["arguments"]), list(said["classes"])
        except (TypeError, KeyError, ValueError):
            self._end("the candidate's process sent no valid answer")
        known = [kind for name in classes if isinstance(kind := vars(builtins).get(str(name)), type)]
        kinds = [kind for kind in known if issubclass(kind, BaseException)]
        if not kinds or not issubclass(kinds[0], Exception):
            self._end(f"the candidate raised {classes[0] if classes else 'nothing'}")
        if issubclass(kinds[0], _CALLED_OFF):
            return RuntimeError(f"the candidate raised {kinds[0].__name__}")
        if kinds[0] is Exception:
            return CandidateError(f"{classes[0]}: {message}")
        try:
            exception = kinds[0](*arguments)
        except Exception:  # noqa: BLE001 - a class that takes other arguments
            return CandidateError(f"{classes[0]}: {message}")
        return exception if isinstance(exception, BaseException) else CandidateError(message)

    def _end(self, why: str) -> NoReturn:
        self.ended = self.ended or why
        raise CandidateEnded(why)


def run_tests(payload: bytes, limits: Limits) -> NoReturn:
    """Run the tests and send the verdict: [PASSED, FAILED or UNUSABLE, reason]."""
    open_standard_streams()
    request = plain.decode(payload)
    link = Link(limits.output_bytes)
    send(RESULTS_FD, plain.encode(_verdict(request, link)))
    os._exit(0)


def _verdict(request: dict[str, Any], link: Link) -> tuple[str, str]:
    namespace: dict[str, Any] = {"__name__": "tests", "__builtins__": builtins}
    try:
        execute(request["preamble"].encode("utf-8", "surrogatepass"), namespace, "preamble.py")
        tests = compile(request["tests"], "tests.py", "exec", dont_inherit=True)
    except BaseException as error:  # noqa: BLE001 - any exception here is not the candidate's fault
        return UNUSABLE, _told(error)
    for name in request["functions"]:
        first, *rest = name.split(".")
        function = link.function(name)
        namespace[first] = type(first, (), {rest[0]: staticmethod(function)}) if rest else function
    try:
        exec(tests, namespace)
    except BaseException as error:  # noqa: BLE001 - anything but reaching the last line is a failure
        verdict = FAILED, _told(error)
    else:
        verdict = PASSED, ""
    if link.unusable is not None:
        return UNUSABLE, link.unusable
    if link.ended is not None:
        return FAILED, link.ended
    return verdict


def _told(error: BaseException) -> str:
    said = describe(error)
    where = error.__traceback__
    line = 0
    while where is not None:
        if where.tb_frame.f_code.co_filename in ("tests.py", "preamble.py"):
            line = where.tb_lineno
        where = where.tb_next
    place = f" (line {line})" if line else ""
    return f"{said['classes'][0]}: {said['message']}{place}"
