"""The definition of a cheat."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sharpen.rewards.checking.case import Case

Attempts = Mapping[str, tuple[str, ...]]
"""The variants of a cheat for a row, by a label shared by all rows. Each is one completion, or several that say the
same in different orders: it only works if all of them are accepted, as a model does not know which order to take."""

BY_CHANCE = 0.2
"""The share of rows on which a fixed answer may be right by chance, as for yes-or-no questions."""


@dataclass(frozen=True, slots=True)
class Cheat:
    """Completions that do not deserve a full reward.

    ``why`` explains it in one line. An attempt passes if it is accepted on more than the share ``tolerated`` of rows; 0
    if it is never right. ``attempts`` is empty for rows to which the cheat does not apply. ``effect`` says whether it
    worked, for cheats whose reward does not show it.
    """

    name: str
    why: str
    attempts: Callable[[Case], Attempts]
    tolerated: float = 0.0
    effect: Callable[[], bool] | None = None


def each(*texts: str) -> Callable[[Case], Attempts]:
    """The same texts for every row, one attempt each, plain and in the form that the reward parses."""

    def attempts(case: Case) -> Attempts:
        return {f"{text!r}, {how}": variant for text in texts for how, variant in case.variants(text).items()}

    return attempts


def plainly(*texts: str) -> Callable[[Case], Attempts]:
    """The same texts for every row, one attempt each, plain only."""
    return lambda case: {repr(text): (text,) for text in texts}
