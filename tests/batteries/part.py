"""A part of the battery, and what it found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Outcome:
    """``cases`` that were tried, what was ``wrong`` in which, and what could not be tried here, with the reason."""

    cases: int = 0
    wrong: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)

    def failed(self, what: str) -> None:
        self.wrong.append(what)
        print(f"  WRONG: {what}", flush=True)

    def __iadd__(self, other: Outcome) -> Outcome:
        self.cases += other.cases
        self.wrong += other.wrong
        self.skipped += other.skipped
        return self


@dataclass(frozen=True)
class Part:
    """``run`` tries the part, in its short form if it is given True."""

    name: str
    what: str
    run: Callable[[bool], Outcome]
