"""The text of a recipe, and what YAML would read from it without a word: two keys of one name, a bomb of aliases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import yaml

from sharpen.errors import RecipeError

DEEPEST = 64
"""Levels of sections and lists. YAML, OmegaConf and pydantic recurse, and none is written by hand that is deeper."""
MOST = 100_000
"""Values of a recipe, those of an alias counted each time that it is used."""


def recipe_text(path: Path) -> str:
    """The text of a recipe's file. Raises RecipeError if there is none that can be read."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        raise RecipeError(f"{path}: no such recipe") from error
    except IsADirectoryError as error:
        hint = ": to continue a run, sharpen run --resume" if (path / "recipe.yaml").is_file() else ""
        raise RecipeError(f"{path}: a folder, not a recipe{hint and f'{hint} {path}'}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path}: not a text in UTF-8 (byte {error.start} is 0x{error.object[error.start]:02x}): save it as UTF-8"
        ) from error
    # A null byte in the path, for example, is a ValueError.
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def check_yaml(text: str, where: str) -> yaml.Node | None:
    """The nodes of a YAML text, None if it has none.

    Raises RecipeError, which begins with ``where``, for what is not YAML, a mapping with two keys of one name, and what
    is too deep or, with its aliases written out, too large.
    """
    try:
        root = yaml.compose(text, yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise RecipeError(f"{where}: not YAML: {in_one_line(error)}") from error
    except RecursionError as error:
        raise RecipeError(f"{where}: nested too deeply: a recipe has at most {DEEPEST} levels") from error
    if root is not None:
        _check_node(root, (), where, {})
    return root


def in_one_line(error: yaml.YAMLError) -> str:
    """What is wrong with a text that is not YAML, and where."""
    mark = getattr(error, "problem_mark", None)
    if not isinstance(error, yaml.MarkedYAMLError) or mark is None:
        return " ".join(str(error).split())
    problem = ", ".join(part for part in (error.context, error.problem) if part)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"


def _check_node(node: yaml.Node, path: tuple[str, ...], where: str, sizes: dict[int, int]) -> int:
    """The number of values of a node; ``sizes`` has those of the nodes that have been counted, which aliases repeat."""
    if len(path) > DEEPEST:
        # Also what refers to itself.
        raise RecipeError(f"{where}: `{'.'.join(path[:4])}` … is nested too deeply: at most {DEEPEST} levels")
    if id(node) in sizes:
        return sizes[id(node)]
    if isinstance(node, yaml.MappingNode):
        _check_keys(node, path, where)
    size = 1 + sum(_check_node(inner, (*path, name), where, sizes) for name, inner in _inner(node))
    if size > MOST:
        raise RecipeError(f"{where}: more than {MOST:,} values, with those of its aliases written out")
    sizes[id(node)] = size
    return size


def _check_keys(node: yaml.MappingNode, path: tuple[str, ...], where: str) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise RecipeError(f"{where}: line {line}: a key is a name, not a list or a section")
        name = ".".join((*path, key.value))
        if name in lines:
            raise RecipeError(f"{where}: line {line}: `{name}` is given twice, first in line {lines[name]}")
        lines[name] = line


def _inner(node: yaml.Node) -> Iterator[tuple[str, yaml.Node]]:
    if isinstance(node, yaml.MappingNode):
        yield from ((key.value, value) for key, value in node.value)
    elif isinstance(node, yaml.SequenceNode):
        yield from ((str(place), value) for place, value in enumerate(node.value))
