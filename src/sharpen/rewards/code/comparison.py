"""When what a program printed or returned is what it should be."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Any, Literal

Output = Literal["tokens", "exact"]

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_LONGEST_NUMBER = 1000  # digits: reading a number takes more than linear time
_MISSING = object()


def same_output(printed: bytes, expected: str, how: Output = "tokens", tolerance: float = 0.0) -> bool:
    """Whether a program printed what it should.

    - ``tokens``: the same words, whatever white space stands between them. With ``tolerance``, two words that are
      numbers are the same where they differ by at most that, absolutely or relative to the larger.
    - ``exact``: the same text but for line breaks at its end.

    Bytes that are no UTF-8 are never the same.
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
    """Whether a function returned what it should: the same values of the same types, in the same number.

    ``1``, ``1.0`` and ``True`` are three values. ``tuple_is_list`` lets a tuple stand for a list and the reverse;
    ``int_is_float`` an integer for a float and the reverse, never a bool. ``tolerance`` is by how much two floats may
    differ, absolutely or relative to the larger. NaN is the same as NaN; the order of sets and of keys does not count.

    Goes only as deep as ``expected``, so that ``found`` may be anything.
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
        # True == 1 == 1.0 also as members: the found one that is equal must be the same too.
        members = {member: member for member in found}
        return len(found) == len(expected) and all(same(members.get(e, _MISSING), e) for e in expected)

    return same(found, expected)


def _same_float(found: float, expected: float, tolerance: float) -> bool:
    if found == expected or (found != found and expected != expected):
        return True
    try:
        return tolerance > 0 and math.isclose(found, expected, rel_tol=tolerance, abs_tol=tolerance)
    except OverflowError:  # an integer beyond all floats
        return False


def _near(found: str, expected: str, tolerance: float) -> bool:
    if len(found) > _LONGEST_NUMBER or not (_NUMBER.fullmatch(found) and _NUMBER.fullmatch(expected)):
        return False
    a, b = float(found), float(expected)
    return math.isfinite(a) and math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
