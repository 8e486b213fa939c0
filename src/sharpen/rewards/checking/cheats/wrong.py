"""Wrong answers in the form of right ones.

Some may be right: rows may have the same answer in other words, and a problem may have several answers.
"""

from __future__ import annotations

import re

from sharpen.rewards.checking.case import Case, off_by_one
from sharpen.rewards.checking.cheats.cheat import Attempts, Cheat

TOLERATED = 0.05

_PROGRAM = re.compile(r"^\s*def \w+\(|^import \w+$|^```", re.MULTILINE)


def _others(case: Case) -> Attempts:
    return {f"row {i} further on": (other,) for i, other in enumerate(case.others[:3], start=1)}


def _off_by_one(case: Case) -> Attempts:
    # The last number of a program often does not matter.
    if case.reference is None or _PROGRAM.search(case.reference):
        return {}
    changed = {f"{by:+d}": off_by_one(case.reference, by) for by in (1, -1)}
    return {label: (text,) for label, text in changed.items() if text is not None}


CHEATS = (
    Cheat("wrong_answer", "the reference of a row with a different answer", _others, TOLERATED),
    Cheat("off_by_one", "the reference with its last number changed by 1", _off_by_one, TOLERATED),
)
