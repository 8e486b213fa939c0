"""User code: importing it, describing its exceptions, and undoing its side effects on the calling process.

No heavy imports: a process that calls a user's function must start fast.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from sharpen.system.signals import ENDING


def load_source(source: str) -> ModuleType:
    """Import a module by name, or a file if ``source`` ends with ``.py``. Raises what the import raises."""
    if source.endswith(".py"):
        return _load_file(Path(source))
    # sys.path of the installed command lacks the working directory, where users keep their functions.
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


class RemoteError(Exception):
    """A function raised in another process. ``kinds`` are the names of the exception's class and its bases."""

    def __init__(self, described: str, kinds: frozenset[str]) -> None:
        super().__init__(described)
        self.kinds = kinds


def kinds_of(error: BaseException) -> frozenset[str]:
    """The names of an exception's class and its bases."""
    if isinstance(error, RemoteError):
        return error.kinds
    return frozenset(kind.__name__ for kind in type(error).__mro__)


def describe(error: BaseException) -> str:
    """An exception's class, message and origin."""
    if isinstance(error, RemoteError):
        return str(error)
    try:
        text = str(error)
    # The exception's class may be the user's own.
    except Exception:  # noqa: BLE001
        text = "(its text cannot be made)"
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {text} ({Path(last.filename).name}, line {last.lineno})"


def ends_program(error: BaseException) -> bool:
    """Whether this exception, if uncaught, ends a command without a traceback and with its own exit code.

    True for ``sys.exit`` and what click and typer handle: ``Exit``, ``Abort``, usage errors, end of input.
    """
    ends = isinstance(error, (SystemExit, EOFError)) or hasattr(error, "exit_code")
    return ends or type(error).__name__ == "Abort"


@contextmanager
def undisturbed() -> Iterator[None]:
    """On exit, restore the working directory, which a run's paths are relative to, and the signal handlers."""
    folder = _folder()
    # Only the main thread can change handlers.
    main = threading.current_thread() is threading.main_thread()
    before = {s: signal.getsignal(s) for s in (*ENDING, signal.SIGALRM)} if main else {}
    try:
        yield
    finally:
        if folder is not None and _folder() != folder:
            os.chdir(folder)
        for signum, handler in before.items():
            if handler is not None and signal.getsignal(signum) != handler:
                signal.signal(signum, handler)


def _folder() -> str | None:
    """The working directory; None if it has been removed."""
    try:
        return os.getcwd()
    except FileNotFoundError:
        return None
