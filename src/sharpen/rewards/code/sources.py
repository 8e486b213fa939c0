"""Parses tests that are Python source. They come from the dataset and are not executed here."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator

from sharpen.system.python_parser import PARSER_LOCK
from sharpen.types import Row


def source_text(row: Row, column: str) -> str:
    """The string in ``column``. Raises ValueError if it is missing or blank."""
    value = row.get(column)
    if not isinstance(value, str):
        raise ValueError(f"the column {column!r} of this row must be a string, not {value!r:.200}")
    if not value.strip():
        raise ValueError(f"the column {column!r} of this row is empty")
    return value


def parsed(source: str) -> ast.Module:
    """The syntax tree. Raises ValueError if the source is not valid Python."""
    try:
        with PARSER_LOCK:
            return ast.parse(source)
    except SyntaxError as error:
        raise ValueError(f"{source!r:.200} is not valid Python: {error}") from None


def asserted_functions(line: str, setup: str) -> tuple[str, ...]:
    """The functions that an assert tests: its names that neither Python, nor ``setup``, nor the line itself defines.

    If there is none but exactly one builtin is called, the result is that builtin: a program may define ``sum``. Raises
    ValueError if the line has no assert, if it tests no function, and if it accesses an attribute of an unknown name:
    that would be a module that ``setup`` does not import.
    """
    tree = parsed(line)
    if not any(isinstance(node, ast.Assert) for node in ast.walk(tree)):
        raise ValueError(f"{line!r:.200} contains no assert")
    known = {*dir(builtins), *_bound(parsed(setup)), *_bound(tree)}
    unknown = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} - known
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in unknown:
            raise ValueError(f"{line!r:.200} uses {node.value.id!r}, which is never imported")
    called = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    if not unknown and len(called) == 1:
        return tuple(called)
    if not unknown:
        raise ValueError(f"{line!r:.200} calls no function of the program")
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
