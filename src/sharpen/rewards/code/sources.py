"""What the tests of a row say that are themselves Python. They belong to the data, and are read here, not run."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator

from sharpen.system.python_parser import PARSER_LOCK
from sharpen.types import Row


def source_text(row: Row, column: str) -> str:
    """The text in ``column``. Raises ValueError if there is none."""
    value = row.get(column)
    if not isinstance(value, str):
        raise ValueError(f"the column {column!r} of this row must be a text, not {value!r:.200}")
    if not value.strip():
        raise ValueError(f"the column {column!r} of this row is empty")
    return value


def parsed(source: str) -> ast.Module:
    """The syntax tree. Raises ValueError if it is no Python."""
    try:
        with PARSER_LOCK:
            return ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"{source!r:.200} is no Python: {error}") from None


def asserted_functions(line: str, setup: str) -> tuple[str, ...]:
    """The functions that an assert tests: the names in it that neither Python, nor ``setup``, nor itself defines.

    Where there is none, but one of Python's own functions is called, it is the one: a program may define ``sum``.
    Raises ValueError if it is no assert, if it tests no function, and if it asks an unknown name for an attribute: that
    would be a module, which ``setup`` lacks.
    """
    tree = parsed(line)
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        raise ValueError(f"{line!r:.200} asserts nothing")
    known = {*dir(builtins), *_bound(parsed(setup)), *_bound(tree)}
    unknown = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - known
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in unknown:
            raise ValueError(f"{line!r:.200} uses {node.value.id!r}, which nothing before it imports")
    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    if not unknown and len(called) == 1:
        return tuple(called)
    if not unknown:
        raise ValueError(f"{line!r:.200} calls no function of a program")
    return tuple(sorted(unknown))


def _bound(module: ast.Module) -> Iterator[str]:
    """The names that a module's own statements bind."""
    for node in ast.walk(module):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from ((alias.asname or alias.name).partition(".")[0] for alias in node.names)
