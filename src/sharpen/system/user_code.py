"""User code: importing it, describing its exceptions, and undoing its side effects on the calling process.

No heavy imports: a process that calls a user's function must start fast.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import importlib.util
import os
import signal
import sys
import sysconfig
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from sharpen.errors import SharpenError
from sharpen.system.shown import cut
from sharpen.system.signals import ENDING

TEXT = 1000
"""Letters of an exception's text that a message shows."""

_importing = threading.local()
_loaded_versions: dict[str, tuple[int, int]] = {}
"""The time of change and the size of each file that was loaded, by the name of its module."""


def load_source(source: str) -> ModuleType:
    """Import a module by name, or a file if ``source`` ends with ``.py``. Raises what the import raises."""
    if source.endswith(".py"):
        return _load_file(Path(source))
    # sys.path of the installed command lacks the working directory, where users keep their functions.
    with _importable(Path.cwd()), _noted(source):
        return importlib.import_module(source)


def being_imported() -> str | None:
    """The user's module or file that this thread is importing, if it is."""
    sources: list[str] = getattr(_importing, "sources", [])
    return sources[-1] if sources else None


def defined_in(module: str) -> str | None:
    """What ``load_source`` takes to give this module again: its name or its file.

    It does from any folder, except a module of a package that is not installed: its imports from the package need its
    name, which is found from the folder that holds the package. None for a module that no file holds, as in a notebook,
    and for a script without `if __name__ == "__main__":`.
    """
    found = sys.modules[module]
    spec, file = getattr(found, "__spec__", None), getattr(found, "__file__", None)
    if module == "__main__" and spec is not None:
        module = spec.name  # started with python -m
    if file is None or not Path(file).is_file():
        return None
    path = Path(file).resolve()
    if module != "__main__" and (is_installed(path) or "." in module):
        return module
    if module == "__main__" and not _is_guarded(path):
        return None  # importing it would run it
    # A module beside a script is importable only where the script was started.
    return str(path) if path.suffix == ".py" else None


def _is_guarded(script: Path) -> bool:
    """Whether a script has a part under ``if __name__ == "__main__":``, without which importing it does all it does."""
    try:
        tree = ast.parse(script.read_bytes())
    except (SyntaxError, ValueError):
        return False
    return any(guards(tree))


def guards(tree: ast.Module) -> Iterator[ast.If]:
    """The parts of a module under ``if __name__ == "__main__":``."""
    for node in tree.body:
        if isinstance(node, ast.If) and any(
            isinstance(p, ast.Name) and p.id == "__name__" for p in ast.walk(node.test)
        ):
            yield node


def is_installed(file: Path) -> bool:
    """Whether a file is in one of the folders of installed packages."""
    keys = ("stdlib", "platstdlib", "purelib", "platlib")
    return any(file.is_relative_to(Path(sysconfig.get_paths()[key]).resolve()) for key in keys)


def _load_file(path: Path) -> ModuleType:
    """The module of a file; executed again only if the file has changed."""
    path = path.expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    main = sys.modules.get("__main__")
    if main is not None and (file := getattr(main, "__file__", None)) and Path(file).resolve() == path:
        return main  # the script that runs, which must not run once more
    # A name that nothing else imports: a file may be called like a package.
    name = f"{path.stem}_{hashlib.blake2b(str(path).encode(), digest_size=6).hexdigest()}"
    state = path.stat()
    version = (state.st_mtime_ns, state.st_size)
    loaded = sys.modules.get(name)
    if loaded is not None and _loaded_versions.get(name) == version:
        return loaded
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Annotations of dataclasses and of settings are resolved there.
    sys.modules[name] = module
    try:
        with _importable(path.parent), _noted(str(path)):
            spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(name, None)
        raise
    _loaded_versions[name] = version
    return module


@contextmanager
def _noted(source: str) -> Iterator[None]:
    """Within it, `being_imported` gives ``source``."""
    sources = _importing.__dict__.setdefault("sources", [])
    sources.append(source)
    try:
        yield
    finally:
        sources.pop()


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
        text = cut(str(error), TEXT)
    # The exception's class may be the user's own.
    except Exception:  # noqa: BLE001
        text = "(its text cannot be made)"
    said = f"{type(error).__name__}: {text}"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if not f.filename.startswith("<frozen ")]
    # A syntax error's text says where it is, and what is raised in this file is said of the user's.
    if not frames or isinstance(error, SyntaxError) or frames[-1].filename == __file__:
        return said
    return f"{said} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"


@contextmanager
def named_failure(what: str, error: type[Exception]) -> Iterator[None]:
    """Turns whatever a user's code raises into ``error``, with a message that begins with ``what``.

    Ctrl-C passes, and so do errors that say already what cannot be used.
    """
    try:
        yield
    except (KeyboardInterrupt, SharpenError, error):
        raise
    # A user's code may raise anything, and classes of its own.
    except BaseException as failed:
        raise error(f"{what} raised {describe(failed)}") from failed


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


@contextmanager
def no_exit_from_user_code() -> Iterator[None]:
    """Turns a `sys.exit` or the like in a user's reward or logger into an error: it must not choose the exit code."""
    try:
        yield
    except BaseException as error:
        if not ends_program(error):
            raise
        raise SharpenError(f"code that was called ends the program with {describe(error)}") from error
