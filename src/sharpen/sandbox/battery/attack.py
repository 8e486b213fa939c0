"""Hostile programs as data, and the text format they are written in."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

_HEAD = re.compile(r"^#: (?P<name>.+?)(?P<harmless> \(harmless\))?$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Attack:
    """A program that tries one thing that programs must not do. It calls `through(...)` to report that it could."""

    group: str
    name: str
    source: str
    is_harmless: bool
    """Does no damage even if nothing stops it, so it may run without isolation."""


def attacks(group: str, text: str) -> Iterator[Attack]:
    """Parse programs from a text: each starts with a line ``#: its name``, or ``#: its name (harmless)``."""
    heads = list(_HEAD.finditer(text))
    for head, end in zip(heads, [*(h.start() for h in heads[1:]), len(text)], strict=True):
        yield Attack(group, head["name"], text[head.end() : end].strip() + "\n", head["harmless"] is not None)
