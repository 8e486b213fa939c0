"""What the catalogue has of a metric."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Direction: TypeAlias = Literal["up", "down", "none"]
"""Which way is better; ``none`` where neither is."""

SHARE = "share"
"""The unit of numbers from 0 to 1 that are shown in percent."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One metric, or all that fit ``name``: in it ``@k`` is any number, and ``<name>`` and the like any text.

    The same in ``title`` stand for what was found there. ``meaning`` and ``normal`` are Markdown, as the page of the
    documentation has them. Metrics of one ``panel`` are drawn together.
    """

    name: str
    title: str
    unit: str
    direction: Direction
    meaning: str
    normal: str = ""
    panel: str = ""
