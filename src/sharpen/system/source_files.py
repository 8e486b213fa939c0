"""Hashes of a user's source code, by which a resumed run notices that it has changed."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sharpen.system.user_code import guards, is_installed


def code_hashes(source: str) -> dict[str, str]:
    """The hash of each file that a module's code consists of, by its path from the folder that it is imported from.

    ``source`` is the name of a module or ends with ``.py``, as for `load_source`. The files are the module's own and
    those beside it that it imports, also within functions and by way of others; of an installed package, its own. What
    a script does under ``if __name__ == "__main__":`` is no part of the code. Empty if the module has no source file.
    """
    first = _file_of(source)
    if first is None:
        return {}
    depth = 0 if source.endswith(".py") else source.count(".") + (first.name == "__init__.py")
    root = first.parents[depth]
    only = first.relative_to(root).parts[0].removesuffix(".py") if is_installed(first) else None
    found: dict[str, str] = {}
    # A module's package is imported before it.
    packages = [folder / "__init__.py" for folder in first.parents[:depth]]
    waiting = [first, *(file for file in packages if file.is_file())]
    while waiting:
        file = waiting.pop()
        name = file.relative_to(root).as_posix()
        if name not in found:
            text, tree = _without_guards(file.read_bytes())
            found[name] = hashlib.sha256(text).hexdigest()
            waiting += _imported(tree, file, root, only)
    return dict(sorted(found.items()))


def source_hash(thing: Any) -> str | None:
    """The hash of the source of a function or class, or of an object's class; None where Python does not know it."""
    while isinstance(thing, functools.partial):
        thing = thing.func
    kind = thing if inspect.isroutine(thing) or isinstance(thing, type) else type(thing)
    try:
        return hashlib.sha256(inspect.getsource(kind).encode()).hexdigest()
    except (OSError, TypeError):
        return None


def _file_of(source: str) -> Path | None:
    if source.endswith(".py"):
        return Path(source).expanduser().resolve()
    spec = getattr(sys.modules.get(source), "__spec__", None) or importlib.util.find_spec(source)
    path = None if spec is None or spec.origin is None else Path(spec.origin)
    return path.resolve() if path is not None and path.suffix == ".py" and path.is_file() else None


def _without_guards(text: bytes) -> tuple[bytes, ast.Module]:
    """A file's text and its syntax tree, both without what only a script does."""
    try:
        tree = ast.parse(text)
    # A file that may be imported, but is not: the import would have failed.
    except (SyntaxError, ValueError):
        return text, ast.Module([], [])
    lines = text.split(b"\n")
    for node in reversed(list(guards(tree))):
        if not node.orelse:
            tree.body.remove(node)
            del lines[node.lineno - 1 : node.end_lineno]
    return b"\n".join(lines), tree


def _imported(tree: ast.Module, file: Path, root: Path, only: str | None) -> Iterator[Path]:
    """The files below ``root`` that a module may import; with ``only``, those of this package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            paths = [(root, name.name) for name in node.names]
        elif isinstance(node, ast.ImportFrom):
            folder = file.parents[min(node.level, len(file.parents)) - 1] if node.level else root
            within = f"{node.module}." if node.module else ""
            paths = [(folder, f"{within}{name.name}") for name in node.names]
        else:
            continue
        for folder, dotted in paths:
            parts = dotted.split(".")
            for end in range(1, len(parts) + 1):
                place = folder.joinpath(*parts[:end])
                inside = place.is_relative_to(root) and (only is None or place.relative_to(root).parts[0] == only)
                for candidate in (place.with_name(f"{place.name}.py"), place / "__init__.py"):
                    if inside and candidate.is_file():
                        yield candidate
