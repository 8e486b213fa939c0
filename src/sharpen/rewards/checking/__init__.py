"""Checks a reward before it is trained on: right answers, wrong answers, cheats."""

from sharpen.rewards.checking.cheats import CHEATS, Cheat
from sharpen.rewards.checking.checker import ALLOWED, check, refuse_unknown
from sharpen.rewards.checking.findings import NO_REFERENCE, worth
from sharpen.rewards.checking.report import References, Report, Result, Timing

__all__ = [
    "ALLOWED",
    "CHEATS",
    "NO_REFERENCE",
    "Cheat",
    "References",
    "Report",
    "Result",
    "Timing",
    "check",
    "refuse_unknown",
    "worth",
]
