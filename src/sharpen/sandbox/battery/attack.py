"""Hostile programs as data."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator

_HEAD = re.compile(r"^#: (?P<name>.+?)(?P<harmless> \(harmless\))?$", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class Attack:
    """A program that tries one thing a program must not do. `through(...)` is how it says that it could."""

    group: str
    name: str
    source: str
    is_harmless: bool
    """What it does to a machine that does not stop it, nobody would notice: it may run without isolation."""


def attacks(group: str, text: str) -> Iterator[Attack]:
    """The programs of a text, each under a line ``#: its name``, with ``(harmless)`` at the end where that is so."""
    heads = list(_HEAD.finditer(text))
    for head, end in zip(heads, [*(h.start() for h in heads[1:]), len(text)], strict=True):
        yield Attack(group, head["name"], text[head.end() : end].strip() + "\n", head["harmless"] is not None)
