"""Comparison of a program's printed or returned output with the expected one."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Collection
from decimal import MAX_EMAX, MAX_PREC, MIN_EMIN, Context, Decimal
from fractions import Fraction
from typing import Any, Literal

from sharpen.sandbox.inside import collector

Output = Literal["tokens", "exact"]

_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_LONGEST_NUMBER = 1000  # digits: parsing a number takes more than linear time
_EXACT = Context(prec=MAX_PREC, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])


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

    Recursion is only as deep as ``expected``, so ``found`` may be anything. Takes time linear in its length.
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
        if wanted in (set, frozenset, dict):
            return len(found) == len(expected) and same_members(found, expected)
        if wanted is float:
            return _same_float(found, expected, tolerance)
        return bool(found == expected)

    def same_members(found: Collection[Any], expected: Collection[Any]) -> bool:
        expected_names = [_name(member, int_is_float) for member in expected]
        try:
            found_names = [_name(member, int_is_float) for member in found]
        except RecursionError:  # nested deeper than what is expected
            return False
        if sorted(found_names) != sorted(expected_names):
            return False
        if not isinstance(found, dict) or not isinstance(expected, dict):
            return True
        values = dict(zip(found_names, found.values(), strict=True))
        return len(values) == len(found) and all(
            same(values[name], value) for name, value in zip(expected_names, expected.values(), strict=True)
        )

    with collector.paused():
        return same(found, expected)


def _name(member: Any, int_is_float: bool) -> str:
    """A canonical name of a set member or dict key: equal for two members exactly if they are the same value.

    Members are compared by name, since looking one up in a set may take very long: Python compares it with every member
    of the same hash, and a program can choose many such members. The hash of a string cannot be predicted.
    """
    kind = type(member)
    if kind is float and int_is_float and member.is_integer():
        member, kind = int(member), int
    if kind is float:
        return f"float {member + 0.0!r}"  # -0.0 is 0.0
    if kind is int:
        return f"int {member:x}"
    if kind is complex:
        return f"complex {member.real + 0.0!r} {member.imag + 0.0!r}"
    if kind is Fraction:
        return f"Fraction {member.numerator:x} {member.denominator:x}"
    if kind is Decimal:
        return f"Decimal {_EXACT.normalize(member) if member else 0}"
    if kind is range:
        return f"range {member.start:x} {member.stop:x} {member.step:x}"
    if kind in (tuple, frozenset):
        parts = [_name(part, int_is_float) for part in member]
        if kind is frozenset:
            parts.sort()
        # A digest instead of the parts, so that names do not grow with nesting.
        return f"{kind.__name__} {hashlib.blake2b(ascii(parts).encode()).hexdigest()}"
    return f"{kind.__name__} {member!r}"


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
