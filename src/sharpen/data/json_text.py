"""JSON as rows hold it, with errors that say what a person can mend: names given twice, numbers of thousands of digits,
lists within hundreds of lists."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

MOST_NESTED = 100
"""How deep the lists and objects of a row may be nested. Python ends at some hundreds, in one place or another."""
TOO_DEEP = f"lists or objects are nested too deeply: more than {MOST_NESTED} within each other"


class JsonError(ValueError):
    """JSON that is well-formed and cannot be read."""


def parsed(text: str) -> Any:
    """`decoded`, unless lists and objects are nested deeper than `MOST_NESTED`: that is a JsonError too."""
    value = decoded(text)
    if text.count("[") + text.count("{") > MOST_NESTED and is_too_deep(value):
        raise JsonError(TOO_DEEP)
    return value


def decoded(text: str) -> Any:
    """The value of a JSON text.

    Raises json.JSONDecodeError for what is no JSON, and JsonError for a name that an object has twice, for a whole
    number of too many digits, and for nesting that Python cannot follow.
    """
    try:
        return _DECODER.decode(text)
    except (json.JSONDecodeError, JsonError):
        raise
    except RecursionError as error:
        raise JsonError(TOO_DEEP) from error
    except ValueError as error:
        # Python's limit of digits.
        raise JsonError(f"not JSON that can be read: {error}; such a number can be written as a text") from error


def is_too_deep(value: Any) -> bool:
    """Whether lists and objects are nested deeper than `MOST_NESTED`."""
    level = [value]
    for _ in range(MOST_NESTED):
        level = [inner for outer in level for inner in _inside(outer)]
        if not level:
            return False
    return True


def row_of_fault(text: str) -> int | None:
    """Which object of a list, counted from 1, is the first that cannot be read; None if the text is no list."""
    place = len(text) - len(text.lstrip())
    if not text.startswith("[", place):
        return None
    for row, start in enumerate(_starts(text, place + 1), start=1):
        try:
            _DECODER.raw_decode(text, start)
        except (ValueError, RecursionError):
            return row
    return None


def half_a_character(value: Any) -> str | None:
    """A text within ``value`` that has no form in UTF-8, cut to where that is; None if all have."""
    if isinstance(value, str):
        if value.isascii():
            return None
        try:
            value.encode()
        except UnicodeEncodeError as error:
            return value[max(0, error.start - 20) : error.end]
        return None
    if isinstance(value, Mapping):
        return next(filter(None, map(half_a_character, (*value.keys(), *value.values()))), None)
    if isinstance(value, list | tuple):
        return next(filter(None, map(half_a_character, value)), None)
    return None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise JsonError(
            f"an object has the name {twice!r} twice; which of the two values is meant? Leave one of them out"
        )
    return found


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def _inside(value: Any) -> Iterator[Any]:
    """The lists and objects directly within one."""
    if isinstance(value, Mapping):
        value = value.values()
    elif not isinstance(value, list | tuple):
        return
    yield from (inner for inner in value if isinstance(inner, Mapping | list | tuple))


def _starts(text: str, place: int) -> Iterator[int]:
    """Where the entries of a list begin, as long as those before can be read."""
    while place < len(text):
        while text[place : place + 1] in (" ", "\t", "\r", "\n", ","):
            place += 1
        yield place
        _, place = _DECODER.raw_decode(text, place)
