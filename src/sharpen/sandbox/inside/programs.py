"""The kinds of job: what runs in a job's process once it is confined. Each one ends the process."""

from __future__ import annotations

import _sitebuiltins
import atexit
import builtins
import io
import linecache
import os
import sys
import threading
import traceback
import types
from collections.abc import Callable
from typing import Any, NoReturn

from . import plain, wire
from .limits import Limits

RESULTS_FD = 3
CALLS_FD = 4
"""The file with the arguments of the calls of `call_function`."""
REQUESTS_FD, REPLIES_FD = 4, 5
"""Between the tests' and the candidate's process: calls one way, outcomes the other."""

FILE_NAME = "program.py"
MODULE_NAME = "solution"
_MESSAGE_CHARACTERS = 1000


def run_program(source: bytes, limits: Limits) -> NoReturn:
    """Run the source as `__main__`."""
    open_standard_streams()
    _finish(lambda: _execute(source, "__main__"))


def call_function(payload: bytes, limits: Limits) -> NoReturn:
    """Run the source, then call its function for each list of arguments, sending results one by one."""
    open_standard_streams()
    request = plain.decode(payload)

    def calls() -> None:
        namespace = _execute(request["source"].encode("utf-8", "surrogatepass"), MODULE_NAME)
        name = request["function"]
        if name.split(".")[0] not in namespace:
            raise NameError(f"name {name.split('.')[0]!r} is not defined")
        for asked in wire.frames_of_file(CALLS_FD, request["start"]):
            arguments, keywords = plain.decode(asked)
            send(RESULTS_FD, outcome(lambda: _named(namespace, name)(*arguments, **keywords)))  # noqa: B023

    _finish(calls)


def serve_candidate(payload: bytes, limits: Limits) -> NoReturn:
    """Run the source, then answer calls of its functions until the tests' process is gone."""
    open_standard_streams()
    request = plain.decode(payload)

    def serve() -> None:
        namespace = _execute(request["preamble"].encode("utf-8", "surrogatepass"), MODULE_NAME)
        execute(request["source"].encode("utf-8", "surrogatepass"), namespace, FILE_NAME)
        while True:
            try:
                asked = wire.read_frame(lambda size: os.read(REQUESTS_FD, size), limits.output_bytes)
            except wire.Cut:
                return
            name, arguments, keywords = plain.decode(asked)
            send(REPLIES_FD, outcome(lambda: _named(namespace, name)(*arguments, **keywords)))  # noqa: B023

    _finish(serve)


def outcome(function: Callable[[], Any]) -> bytes:
    """The outcome of a call: [true, value] or [false, description of the exception]."""
    try:
        value = function()
        try:
            return plain.encode([True, value])
        except plain.NotPlain as error:
            return plain.encode([False, refusal(error)])
    except BaseException as error:  # noqa: BLE001 - anything a program raises is its result
        return plain.encode([False, describe(error)])


def refusal(error: plain.NotPlain) -> dict[str, Any]:
    """As `describe`, but hiding that it is a ValueError: tests may expect one from the candidate."""
    return {"message": str(error), "arguments": [], "classes": ["NotPlain", "Exception"]}


def describe(error: BaseException) -> dict[str, Any]:
    """An exception as plain data: its message, its arguments, and its class names in MRO order."""
    try:
        message = str(error)[:_MESSAGE_CHARACTERS]
    except Exception:  # noqa: BLE001 - a program's own exception may do anything here
        message = ""
    arguments = list(error.args)
    try:
        if len(plain.encode(arguments)) > _MESSAGE_CHARACTERS:
            arguments = [message]
    except Exception:  # noqa: BLE001 - as above
        arguments = [message]
    classes = [kind.__name__ for kind in type(error).__mro__[:-1]]
    return {"message": message, "arguments": arguments, "classes": classes}


def execute(source: bytes, namespace: dict[str, Any], file_name: str) -> None:
    """Run source code in a namespace. Tracebacks show its lines."""
    text = source.decode("utf-8", "surrogatepass")
    linecache.cache[file_name] = (len(text), None, text.splitlines(keepends=True), file_name)
    exec(compile(text, file_name, "exec", dont_inherit=True), namespace)


def _execute(source: bytes, module_name: str) -> dict[str, Any]:
    module = types.ModuleType(module_name)
    sys.modules[module_name] = module
    module.__dict__["__builtins__"] = builtins
    execute(source, module.__dict__, FILE_NAME)
    return module.__dict__


def _named(namespace: dict[str, Any], name: str) -> Callable[..., Any]:
    """A function by name, or for Class.method a method of a new instance."""
    first, *rest = name.split(".")
    if first not in namespace:
        raise NameError(f"name {first!r} is not defined")
    found = namespace[first]
    for part in rest:
        found = getattr(found() if isinstance(found, type) else found, part)
    return found  # type: ignore[no-any-return]


def open_standard_streams() -> None:
    sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, "r", closefd=False)), encoding="utf-8")
    sys.stdout = io.TextIOWrapper(io.BufferedWriter(io.FileIO(1, "w", closefd=False)), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(
        io.BufferedWriter(io.FileIO(2, "w", closefd=False)),
        encoding="utf-8",
        errors="backslashreplace",
        line_buffering=True,
    )
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr  # type: ignore[misc]
    sys.argv = [FILE_NAME]
    for name in ("exit", "quit"):
        setattr(builtins, name, _sitebuiltins.Quitter(name, "Ctrl-D"))


def _finish(body: Callable[[], object]) -> NoReturn:
    """Run the body and end the process as the interpreter would: threads, exit functions, buffers, exit code."""
    code = 0
    try:
        body()
    except BaseException as error:  # noqa: BLE001 - a program may end with any exception
        code = _report(error)
    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
    except BaseException as error:  # noqa: BLE001 - a program may replace any of these
        code = _report(error) or 1
    os._exit(code & 0xFF)


def _report(error: BaseException) -> int:
    """Print what the interpreter would print, and return the exit code."""
    if isinstance(error, SystemExit):
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        os.write(2, f"{error.code}\n".encode(errors="backslashreplace"))
        return 1
    if isinstance(error, MemoryError):
        os.write(RESULTS_FD, wire.frame(b"memory"))
    inner = error.__traceback__
    while inner is not None and inner.tb_frame.f_code.co_filename == __file__:
        inner = inner.tb_next
    text = "".join(traceback.format_exception(type(error), error, inner))
    os.write(2, text.encode(errors="backslashreplace"))
    return 1


def send(fd: int, body: bytes) -> None:
    left = memoryview(wire.frame(body))
    while left:
        left = left[os.write(fd, left) :]
