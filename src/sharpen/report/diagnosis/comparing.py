"""Whether a noisy figure has changed between two stretches of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

ERRORS = 3.0
"""Standard errors beyond which a difference counts: of independent steps, chance gives one in 700 stretches."""


def change(before: Sequence[float], after: Sequence[float]) -> tuple[float, float]:
    """The difference of the means, and its standard error by the scatter of both (Welch). Two values each, or more."""
    error = math.sqrt(_variance(before) / len(before) + _variance(after) / len(after))
    return fmean(after) - fmean(before), error


def risen(before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether the mean has risen by more than chance explains. Stretches of less than three values never have."""
    if min(len(before), len(after)) < 3:
        return False
    difference, error = change(before, after)
    return difference > ERRORS * error and difference > 1e-9


def _variance(values: Sequence[float]) -> float:
    """Of a sample. In floating point: that of `statistics` takes exact fractions, and 30 times as long."""
    mean = fmean(values)
    return sum((value - mean) ** 2 for value in values) / (len(values) - 1)
