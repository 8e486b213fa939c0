"""Numbers in a base that is written as an index: ``2516_8``."""

from __future__ import annotations

import re

_NAMES = {
    name: base
    for base, name in enumerate(
        ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"), start=2
    )
} | {"sixteen": 16}
_BASE = rf"(\d{{1,2}}|{'|'.join(_NAMES)})"
_IN_BASE = re.compile(
    rf"(-?)\s*\(?(?:\\text\s*\{{\s*)?([0-9A-Z](?:[0-9A-Z ]*[0-9A-Z])?)\s*\}}?\)?\s*"
    rf"_\s*(?:\{{\s*)?(?:\\text\s*\{{\s*)?(?:base\s*)?{_BASE}\s*\}}*"
)
_SPOKEN = re.compile(
    rf"(-?)\s*([0-9A-Z](?:[0-9A-Z ]*[0-9A-Z])?)\s*(?:\\text\s*\{{\s*)?\(?\s*(?:in )?base[- ]{_BASE}\s*\)?\s*\}}?"
)


def in_base(text: str) -> tuple[int, int] | None:
    """The value and the base of a number with its base, or None.

    A letter alone with an index is a variable, not a digit.
    """
    found = _IN_BASE.fullmatch(text) or _SPOKEN.fullmatch(text)
    if found is None:
        return None
    sign, digits, base_name = found[1], found[2].replace(" ", ""), found[3]
    base = _NAMES.get(base_name) or int(base_name)
    if not 2 <= base <= 36 or (len(digits) == 1 and digits.isalpha()):
        return None
    try:
        value = int(digits, base)
    except ValueError:
        return None
    return (-value if sign else value), base
