"""Comparison of a program's printed or returned output with the expected one."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Any, Literal

Output = Literal["tokens", "exact"]

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_LONGEST_NUMBER = 1000  # digits: parsing a number takes more than linear time
_MISSING = object()


def same_output(printed: bytes, expected: str, how: Output = "tokens", tolerance: float = 0.0) -> bool:
    """Whether a program printed the expected output.

    - ``tokens``: the same words, regardless of white space. With ``tolerance``, two numbers are equal if they differ by
      at most that, absolutely or relative to the larger.
    - ``exact``: the same text, except for trailing line breaks.

    Output that is not valid UTF-8 never matches.
    """
    try:
        text = printed.decode()
    except UnicodeDecodeError:
        return False
    if how == "exact":
        return text.rstrip("\r\n") == expected.rstrip("\r\n")
    found, wanted = text.split(), expected.split()
    return len(found) == len(wanted) and all(
        f == w or (tolerance > 0 and _near(f, w, tolerance)) for f, w in zip(found, wanted, strict=True)
    )


def same_value(
    found: Any, expected: Any, *, tuple_is_list: bool = True, int_is_float: bool = False, tolerance: float = 0.0
) -> bool:
    """Whether a function returned the expected value: same values, types and lengths.

    ``1``, ``1.0`` and ``True`` differ. ``tuple_is_list`` treats tuples and lists alike, ``int_is_float`` integers and
    floats, but never bools. ``tolerance`` is how much two floats may differ, absolutely or relative to the larger. NaN
    equals NaN; the order of sets and of dictionary keys does not matter.

    Recursion is only as deep as ``expected``, so ``found`` may be anything.
    """

    def same(found: Any, expected: Any) -> bool:
        kind, wanted = type(found), type(expected)
        if kind is not wanted:
            if tuple_is_list and {kind, wanted} == {list, tuple}:
                wanted = list
            elif int_is_float and {kind, wanted} == {int, float}:
                wanted = float
            else:
                return False
        if wanted in (list, tuple):
            return len(found) == len(expected) and all(map(same, found, expected))
        if wanted in (set, frozenset):
            return _same_members(found, expected)
        if wanted is dict:
            return _same_members(found, expected) and all(same(found[key], expected[key]) for key in expected)
        if wanted is float:
            return _same_float(found, expected, tolerance)
        return bool(found == expected)

    def _same_members(found: Collection[Any], expected: Collection[Any]) -> bool:
        # True == 1 == 1.0 also as members, so an equal member still has to pass same().
        members = {member: member for member in found}
        return len(found) == len(expected) and all(same(members.get(e, _MISSING), e) for e in expected)

    return same(found, expected)


def _same_float(found: float, expected: float, tolerance: float) -> bool:
    if found == expected or (found != found and expected != expected):
        return True
    try:
        return tolerance > 0 and math.isclose(found, expected, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # an integer too large for a float
        return False


def _near(found: str, expected: str, tolerance: float) -> bool:
    if len(found) > _LONGEST_NUMBER or not (_NUMBER.fullmatch(found) and _NUMBER.fullmatch(expected)):
        return False
    a, b = float(found), float(expected)
    return math.isfinite(a) and math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
