"""The interval of a mean over a few independent runs, by Student's t."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from sharpen.evaluation.estimators import Estimate


def mean_interval(values: Sequence[float], level: float = 0.95) -> Estimate:
    """The mean of n independent values with its interval, mean ± t_{n−1} · s / √n; s² divides by n − 1.

    It holds for values that are normally distributed. There is no interval of one value, or of values that are not
    finite: both ends are NaN.
    """
    n, mean = len(values), statistics.fmean(values) if all(map(math.isfinite, values)) else math.nan
    if n == 1 or math.isnan(mean):
        return Estimate(mean, math.nan, math.nan)
    half = t_quantile(level, n - 1) * statistics.stdev(values) / math.sqrt(n)
    return Estimate(mean, mean - half, mean + half)


def t_quantile(level: float, degrees: int) -> float:
    """The t with P(|T| ≤ t) = ``level`` for Student's T with this many degrees of freedom."""
    low, high = 0.0, math.pi / 2
    # P grows with the angle atan(t/√ν), and every step halves what is left: to the precision of a double.
    for _ in range(64):
        middle = (low + high) / 2
        low, high = (middle, high) if _probability_within(middle, degrees) < level else (low, middle)
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def _probability_within(angle: float, degrees: int) -> float:
    """P(|T| ≤ √ν tan(angle)): the finite sums of Abramowitz and Stegun, 26.7.3 for odd ν and 26.7.4 for even ν."""
    odd = degrees % 2
    cosine = math.cos(angle)
    term = cosine if odd else 1.0
    total = 0.0
    for power in range(odd, degrees - 1, 2):
        total += term
        term *= (power + 1) / (power + 2) * cosine**2
    if odd:
        return 2 / math.pi * (angle + math.sin(angle) * total)
    return math.sin(angle) * total
