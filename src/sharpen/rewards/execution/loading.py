"""Imports the module or file of a user's function. Standard library only: worker processes must start fast."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


def load_source(source: str) -> ModuleType:
    """The module of that name, or the file if the name ends with ``.py``. Raises what importing it raises."""
    if source.endswith(".py"):
        return _load_file(Path(source))
    # The installed command does not search the working directory, where people keep their functions.
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
