"""Parses the tests of a program from the columns of popular datasets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sharpen.types import Row

WrappedOutputs = Literal["never", "always", "either"]

_PLAIN = (type(None), bool, int, float, str, bytes, complex)


@dataclass(frozen=True, slots=True)
class StdinTest:
    """Standard input and expected standard output of a program."""

    stdin: str
    stdout: str


@dataclass(frozen=True, slots=True)
class CallTest:
    """Positional arguments of a function, and the accepted return values."""

    arguments: tuple[Any, ...]
    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class AssertTest:
    """Source that raises if the program is wrong, and the program's functions that it calls."""

    source: str
    functions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class StdinTests:
    """At least one test of a whole program."""

    tests: tuple[StdinTest, ...]


@dataclass(frozen=True, slots=True)
class CallTests:
    """At least one test of a function."""

    function: str
    tests: tuple[CallTest, ...]


def read_tests(row: Row, column: str, function_column: str, wrapped: WrappedOutputs) -> StdinTests | CallTests:
    """The tests in ``column``: of the function named by them or by ``function_column``, else of the whole program.

    The column holds one of these, or its JSON text:

    - a list of tests ``{"input": …, "output": …}``;
    - ``{"inputs": [...], "outputs": [...]}``, of equal length.

    Both forms, and each test, may name the function as ``fn_name``. The keys ``testtype`` and ``type`` of a test may be
    ``stdin`` or ``stdin_stdout``, or ``functional`` or ``function_call``, and must agree with that.

    For a whole program, input and output are strings or lists of lines. For a function, the input is the list of
    arguments and the output is the return value; if the input is a string, it holds one JSON argument per line, and the
    output is a JSON string. ``wrapped`` says whether each output is wrapped in a list, as in APPS and TACO; ``either``
    accepts both the list and its only item.

    Raises ValueError, naming column and test, for anything else.
    """
    place = f"the column {column!r} of this row"
    given = from_json(row.get(column), place)
    if given is None or given in ({}, []):
        raise ValueError(f"{place} is empty")
    entries = [(f"test {number} in {place}", entry) for number, entry in enumerate(_entries(given, place), start=1)]
    function = _function_name([e.get("fn_name") for _, e in entries], row.get(function_column), function_column)
    for where, entry in entries:
        _check_kind(entry, function, where)
    if function is None:
        return StdinTests(tuple(StdinTest(_text(e, "input", w), _text(e, "output", w)) for w, e in entries))
    return CallTests(function, tuple(_call_test(e, wrapped, w) for w, e in entries))


def from_json(value: Any, place: str) -> Any:
    """What a text is as JSON; anything else as it is. Raises ValueError for other texts."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        # Some datasets store tests as base64 pickles, which can execute code when loaded.
        raise ValueError(
            f"{place} is not valid JSON ({error}); pickled and compressed tests are not supported"
        ) from None


def _entries(given: Any, place: str) -> Iterator[Mapping[str, Any]]:
    if isinstance(given, Mapping):
        yield from _columns(given, place)
        return
    if not isinstance(given, Sequence) or isinstance(given, (str, bytes)):
        raise ValueError(f"{place} holds a {type(given).__name__}, not tests")
    for number, entry in enumerate(given, start=1):
        if not isinstance(entry, Mapping) or "input" not in entry or "output" not in entry:
            raise ValueError(f"test {number} in {place} has no 'input' and 'output': {entry!r:.200}")
        yield entry


def _columns(given: Mapping[str, Any], place: str) -> Iterator[Mapping[str, Any]]:
    suffix = "s" if "inputs" in given else ""
    inputs, outputs = given.get(f"input{suffix}"), given.get(f"output{suffix}")
    if not isinstance(inputs, (list, tuple)) or not isinstance(outputs, (list, tuple)):
        raise ValueError(f"{place} has no lists 'inputs' and 'outputs'; its keys are {', '.join(map(str, given))}")
    if len(inputs) != len(outputs):
        raise ValueError(f"{place} has {len(inputs)} inputs and {len(outputs)} outputs")
    if not inputs:
        raise ValueError(f"{place} has no tests")
    for question, output in zip(inputs, outputs, strict=True):
        yield {"input": question, "output": output, "fn_name": given.get("fn_name")}


def _function_name(of_tests: Sequence[Any], of_row: Any, column: str) -> str | None:
    """The name from the tests or from the row: a name, or an object (or its JSON text) with ``func_name``."""
    if isinstance(of_row, str) and of_row.lstrip().startswith("{"):
        of_row = from_json(of_row, f"the column {column!r} of this row")
    if isinstance(of_row, Mapping):
        of_row = of_row.get("fn_name") or of_row.get("func_name")
    name = of_tests[0] or of_row or None
    if any(other and other != name for other in (*of_tests, of_row)):
        raise ValueError(f"the tests of this row name several functions: {of_tests}, {column!r} {of_row!r}")
    if name is not None and not isinstance(name, str):
        raise ValueError(f"the function name of this row is {name!r}, not a string")
    return name


def _check_kind(entry: Mapping[str, Any], function: str | None, where: str) -> None:
    kind = entry.get("testtype") or entry.get("type")
    if kind is None:
        return
    if kind not in ("stdin", "stdin_stdout", "functional", "function_call"):
        raise ValueError(f"{where} has the unknown type {kind!r}")
    if (function is None) != (kind in ("stdin", "stdin_stdout")):
        needs = "names no function" if function is None else f"names the function {function!r}"
        raise ValueError(f"{where} has the type {kind!r}, but the row {needs}")


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    value = entry[key]
    if isinstance(value, (list, tuple)) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise ValueError(f"{where}: the {key} is a {type(value).__name__}, not a string or a list of lines")
    return value


def _call_test(entry: Mapping[str, Any], wrapped: WrappedOutputs, where: str) -> CallTest:
    arguments, value = entry["input"], entry["output"]
    if isinstance(arguments, str):
        if not isinstance(value, str):
            raise ValueError(f"{where}: the input is a string, so the output must be a JSON string, not {value!r:.200}")
        lines = [line for line in arguments.split("\n") if line.strip()]
        arguments = [from_json(line, f"a line of the input of {where}") for line in lines]
        value = from_json(value, f"the output of {where}")
    if not isinstance(arguments, (list, tuple)):
        raise ValueError(f"{where}: the input is a {type(arguments).__name__}, not a list of arguments")
    for part in (*arguments, value):
        _check_plain(part, where)
    return CallTest(tuple(arguments), _values(value, wrapped, where))


def _values(value: Any, wrapped: WrappedOutputs, where: str) -> tuple[Any, ...]:
    alone = isinstance(value, list) and len(value) == 1
    if wrapped == "always" and not alone:
        raise ValueError(
            f"{where}: the output {value!r:.200} is not a list of one item, as wrapped_outputs=always requires"
        )
    if wrapped == "always":
        return (value[0],)
    return (value, value[0]) if wrapped == "either" and alone else (value,)


def _check_plain(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        parts = [*value.keys(), *value.values()]
    elif type(value) in (list, tuple, set, frozenset):
        parts = list(value)
    elif type(value) in _PLAIN:
        parts = []
    else:
        raise ValueError(f"{where} holds a {type(value).__name__}, which is not plain data")
    for part in parts:
        _check_plain(part, where)
