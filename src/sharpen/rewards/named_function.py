"""Finds the function that ``module:function`` names; run as a script, it calls such functions for another process.

The script reads one JSON line ``{"function", "arguments", "keywords", "timeout_s"}`` after another from standard input
and writes one line each: ``{"value"}``, ``{"unusable"}`` with the type of a value that is no number, None or list, or
``{"raised", "kinds"}`` for an exception. It uses the standard library alone, so that it starts at once.
"""

from __future__ import annotations

import faulthandler
import importlib
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any


class FunctionError(Exception):
    """A function raised in another process. ``kinds`` are the names of the exception's class and its bases."""

    def __init__(self, described: str, kinds: frozenset[str]) -> None:
        super().__init__(described)
        self.kinds = kinds


def load_source(source: str) -> ModuleType:
    """The module of that name, or of that file where the name ends with ``.py``. Raises what importing it raises."""
    if source.endswith(".py"):
        return _load_file(Path(source))
    # The installed command does not search the folder it is called in, where people keep their functions.
    with _importable(Path.cwd()):
        return importlib.import_module(source)


def _load_file(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with _importable(path.parent):
        spec.loader.exec_module(module)
    return module


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    sys.path.append(str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@lru_cache
def _named(function: str) -> Any:
    source, _, attribute = function.rpartition(":")
    return attrgetter(attribute)(load_source(source))


def _reply(request: Mapping[str, Any]) -> dict[str, Any]:
    try:
        value = _named(request["function"])(*request["arguments"], **request["keywords"])
        return {"value": _plain(value)}
    except _UnusableError as error:
        return {"unusable": str(error)}
    # The user's code may raise anything, SystemExit too; it is told to the process that asked.
    except BaseException as error:  # noqa: BLE001
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(last.filename).name}, line {last.lineno}"
        kinds = [kind.__name__ for kind in type(error).__mro__]
        return {"raised": f"{type(error).__name__}: {error} ({where})", "kinds": kinds}


class _UnusableError(Exception):
    """The type of a value that is no number, None or list of such."""


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # a numpy scalar, a tensor
        value = value.tolist()
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    try:
        return float(value) if hasattr(value, "__float__") else _refused(value)
    except OverflowError:
        return float("inf")


def _refused(value: Any) -> Any:
    raise _UnusableError(type(value).__name__)


def main() -> None:
    # Only requests may leave one pipe and only replies may enter the other, whatever a function reads and prints.
    requests = os.fdopen(os.dup(sys.stdin.fileno()))
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), sys.stdin.fileno())
    print(json.dumps({"ready": True}), file=replies)
    for line in requests:
        request = json.loads(line)
        # A call that hangs must not outlive a trainer that was killed. This needs neither a signal, which the function
        # may use, nor the interpreter's lock, which it may hold.
        faulthandler.dump_traceback_later(request["timeout_s"] + 1, file=sys.stderr, exit=True)
        reply = _reply(request)
        faulthandler.cancel_dump_traceback_later()
        print(json.dumps(reply), file=replies)


if __name__ == "__main__":
    main()
