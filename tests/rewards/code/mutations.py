"""Wrong programs, made of right ones."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator

Change = Callable[[], None]

_OPERATORS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.FloorDiv,
    ast.Pow: ast.Mult,
    ast.BitXor: ast.BitAnd,
    ast.Lt: ast.GtE,
    ast.LtE: ast.Gt,
    ast.Gt: ast.LtE,
    ast.GtE: ast.Lt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.USub: ast.UAdd,
}


def mutants(source: str, function: str) -> dict[str, str]:
    """``source`` with one mistake in ``function``, by the name of the mistake; those that it has a place for."""
    found = {}
    for name, changes in (("constant", _constants), ("operator", _operators), ("return", _early_return)):
        tree = ast.parse(source)
        change = next(changes(_last_definition(tree, function)), None)
        if change is not None:
            change()
            found[name] = ast.unparse(ast.fix_missing_locations(tree))
    return found


def _last_definition(tree: ast.Module, name: str) -> ast.FunctionDef:
    return [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name][-1]


def _statements(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """Every node of the body but the documentation."""
    for statement in function.body[1 if ast.get_docstring(function) is not None else 0 :]:
        yield from ast.walk(statement)


def _constants(function: ast.FunctionDef) -> Iterator[Change]:
    for node in _statements(function):
        if isinstance(node, ast.Constant):
            value = node.value
            if isinstance(value, bool):
                yield lambda node=node, value=value: setattr(node, "value", not value)
            elif isinstance(value, (int, float)):
                yield lambda node=node, value=value: setattr(node, "value", value + 1)
            elif isinstance(value, str):
                yield lambda node=node, value=value: setattr(node, "value", value + "x")


def _operators(function: ast.FunctionDef) -> Iterator[Change]:
    for node in _statements(function):
        if isinstance(node, ast.Compare) and type(node.ops[0]) in _OPERATORS:
            yield lambda node=node: node.ops.__setitem__(0, _OPERATORS[type(node.ops[0])]())
        elif isinstance(node, (ast.BinOp, ast.AugAssign, ast.BoolOp, ast.UnaryOp)) and type(node.op) in _OPERATORS:
            yield lambda node=node: setattr(node, "op", _OPERATORS[type(node.op)]())


def _early_return(function: ast.FunctionDef) -> Iterator[Change]:
    first = copy.copy(function.args.args[0].arg) if function.args.args else None
    value = ast.Constant(None) if first is None else ast.Name(first, ast.Load())
    yield lambda: function.body.insert(0, ast.Return(value))
