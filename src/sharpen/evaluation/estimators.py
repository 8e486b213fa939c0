"""Estimators over several draws per prompt, and their intervals. Pure functions on numpy arrays.

``P`` prompts, ``n`` draws of each, ``c`` of them right.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# Values held at once while resampling: 4 M indices and 4 M floats are 48 MB.
_RESAMPLES_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over prompts with its interval; ``low`` and ``high`` are NaN where there is none."""

    mean: float
    low: float
    high: float


def pass_at_k(n: ArrayLike, c: ArrayLike, k: int) -> Floats:
    """The chance that at least one of k draws is right, from ``c`` right ones among ``n``; without bias.

        pass@k = 1 - C(n-c, k) / C(n, k) = 1 - Π_{i=0}^{k-1} (n-c-i) / (n-i)

    Chen et al. 2021, arXiv:2107.03374, eq. 1. The product has no large factors, so any n is safe. ``n`` and
    ``c`` are whole numbers or arrays of them, broadcast; the result has their shape.

    Raises ValueError if k is below 1 or above any n, or c is not within 0 to n.
    """
    n_P, c_P = np.broadcast_arrays(np.asarray(n, dtype=np.int64), np.asarray(c, dtype=np.int64))
    if k < 1:
        raise ValueError(f"pass@k needs k of at least 1, not {k}")
    if np.any(n_P < k):
        raise ValueError(f"pass@{k} needs at least {k} draws per prompt, one has {n_P.min()}")
    if np.any(c_P < 0) or np.any(c_P > n_P):
        raise ValueError("the number of right draws must lie between 0 and the number of draws")
    all_wrong_P = np.ones(n_P.shape)
    for i in range(k):
        all_wrong_P *= np.maximum(n_P - c_P - i, 0) / (n_P - i)
    return np.asarray(1.0 - all_wrong_P)


def majority_at_k(answers: Sequence[Sequence[str | None]], correct: Sequence[Sequence[bool]], k: int) -> Floats:
    """How often the most frequent of k answers is right, for each of P prompts (maj@k, self-consistency).

    Wang et al. 2022, arXiv:2203.11171. ``answers[p][j]`` is the answer of draw j to prompt p, in the form in
    which votes are counted, or None where it gives none; ``correct[p][j]`` says whether that draw is right.
    The n draws of a prompt make ⌊n/k⌋ blocks of k consecutive ones; each is an independent sample of k, so
    their mean has no bias. Draws left over are not used.

    The tie rule: among the answers with the most votes, one is drawn at random. A block counts the chance
    that it is right, so no random number is needed. Draws without an answer have no vote; a block of nothing
    else is wrong. If draws with the same answer differ in ``correct``, the answer counts their share.

    Raises ValueError if k is below 1, a prompt has fewer than k draws, or the two arguments differ in shape.
    """
    if k < 1:
        raise ValueError(f"maj@k needs k of at least 1, not {k}")
    values: list[float] = []
    for answers_n, correct_n in zip(answers, correct, strict=True):
        if len(answers_n) != len(correct_n):
            raise ValueError(f"{len(answers_n)} answers, but {len(correct_n)} marks of right or wrong")
        if len(answers_n) < k:
            raise ValueError(f"maj@{k} needs at least {k} draws per prompt, one has {len(answers_n)}")
        starts = range(0, len(answers_n) - k + 1, k)
        blocks = [_majority(answers_n[i : i + k], correct_n[i : i + k]) for i in starts]
        values.append(math.fsum(blocks) / len(blocks))
    return np.asarray(values, dtype=np.float64)


def bootstrap_interval(
    values_P: ArrayLike, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean over prompts.

    Draws P values with replacement, ``resamples`` times, and takes the (1 ± level)/2 quantiles of the means;
    Efron 1979. Prompts are resampled, not draws: the interval says how far another set of prompts like these
    could have come out. One prompt says nothing about that, so for P = 1 both ends are NaN. Equal values give
    an interval of no width, however few they are: all right or all wrong is known less well than it looks.

    Raises ValueError if there are no values, one is not finite, or ``level`` is not between 0 and 1.
    """
    sample_P = np.asarray(values_P, dtype=np.float64).reshape(-1)
    if sample_P.size == 0 or not np.all(np.isfinite(sample_P)):
        raise ValueError("an interval needs at least one value, and finite ones")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level must lie between 0 and 1 (is {level}), resamples above 0 (is {resamples})")
    if sample_P.size == 1:
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    rows = max(1, _RESAMPLES_AT_ONCE // sample_P.size)
    means = np.empty(resamples)
    for start in range(0, resamples, rows):
        count = min(rows, resamples - start)
        chosen = generator.integers(sample_P.size, size=(count, sample_P.size), dtype=np.int32)
        means[start : start + count] = sample_P[chosen].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def estimate(values_P: ArrayLike, level: float = 0.95, resamples: int = 10_000, seed: int = 0) -> Estimate:
    """The mean over prompts with its `bootstrap_interval`."""
    low, high = bootstrap_interval(values_P, level, resamples, seed)
    return Estimate(float(np.mean(np.asarray(values_P, dtype=np.float64))), low, high)


def _majority(answers_k: Sequence[str | None], correct_k: Sequence[bool]) -> float:
    votes = Counter(answer for answer in answers_k if answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    winners = {answer for answer, count in votes.items() if count == most}
    marks = [bool(right) for answer, right in zip(answers_k, correct_k, strict=True) if answer in winners]
    # Winners have equally many draws, so the mean over draws is the mean over winners.
    return sum(marks) / len(marks)
