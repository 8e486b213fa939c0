"""What a cheat is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sharpen.rewards.checking.case import Case

Attempts = Mapping[str, tuple[str, ...]]
"""The ways to try one cheat on a row, by a label that is the same for all rows. Each is one completion, or several that
say the same in different orders: it works only if all of them are accepted, for a model does not know which to take."""

BY_LUCK = 0.2
"""The share of rows on which a fixed answer may be right by luck: every yes-or-no question is, half of the time."""


@dataclass(frozen=True, slots=True)
class Cheat:
    """Completions that are not worth a full reward.

    ``why`` is a line that explains it. An attempt passes if it is accepted on more than the share ``tolerated`` of the
    rows: 0 for what is never right. ``attempts`` gives none for a row that it cannot be made for. ``effect`` tells
    whether it worked, where that does not show in its reward.
    """

    name: str
    why: str
    attempts: Callable[[Case], Attempts]
    tolerated: float = 0.0
    effect: Callable[[], bool] | None = None


def each(*texts: str) -> Callable[[Case], Attempts]:
    """The same texts for every row, each an attempt of its own, plain and in the form that the reward reads."""

    def attempts(case: Case) -> Attempts:
        return {f"{text!r}, {how}": told for text in texts for how, told in case.told(text).items()}

    return attempts


def plainly(*texts: str) -> Callable[[Case], Attempts]:
    """The same texts for every row, each an attempt of its own, as they are."""
    return lambda case: {repr(text): (text,) for text in texts}
