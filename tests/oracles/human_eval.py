"""What plain Python says of programs and tests that one trusts: run as a process of its own, with no sandbox.

Reads JSON lines with ``right``, ``program``, ``test`` and ``entry_point``; writes for each a JSON line with ``passes``:
whether the program passes the tests, and ``differs``: whether, on the arguments that the tests call the right program
with, it gives anything else.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import resource
import signal
import sys
from typing import Any

TIMEOUT_S = 1.0


class Late(BaseException):
    pass


def late(*_: object) -> None:
    raise Late


def within_time(function: Any, *arguments: Any) -> tuple[str, Any]:
    signal.setitimer(signal.ITIMER_REAL, TIMEOUT_S)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return "value", function(*arguments)
    except BaseException as error:  # noqa: BLE001
        return "raised", type(error).__name__
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def load(source: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    exec(source, namespace)
    return namespace


def passes(program: str, test: str, entry_point: str) -> bool:
    return within_time(exec, f"{program}\n{test}\ncheck({entry_point})", {})[0] == "value"


def arguments_of(right: str, test: str, entry_point: str) -> list[Any]:
    """What the tests call the function with."""
    namespace = load(f"{right}\n{test}")
    seen: list[Any] = []

    def recorded(*arguments: Any) -> Any:
        seen.append(copy.deepcopy(arguments))
        return namespace[entry_point](*arguments)

    namespace["check"](recorded)
    return seen


def differs(right: str, program: str, entry_point: str, arguments: list[Any]) -> bool:
    functions = [load(source)[entry_point] for source in (right, program)]
    for given in arguments:
        expected, found = (repr(within_time(function, *copy.deepcopy(given))) for function in functions)
        if expected != found:
            return True
    return False


def main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    signal.signal(signal.SIGALRM, late)
    for line in sys.stdin:
        case = json.loads(line)
        right, program, test, name = (case[key] for key in ("right", "program", "test", "entry_point"))
        verdict = {"passes": passes(program, test, name)}
        verdict["differs"] = differs(right, program, name, arguments_of(right, test, name))
        sys.stdout.write(json.dumps(verdict) + "\n")


if __name__ == "__main__":
    main()
