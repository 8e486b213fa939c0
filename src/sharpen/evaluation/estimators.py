"""Estimators over several completions per prompt, and their intervals. Pure functions on numpy arrays.

``P`` prompts, ``n`` completions of each, ``c`` of them right.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]

# Values in memory at once while resampling: 4 M indices and 4 M floats are 48 MB.
_RESAMPLES_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over prompts with its interval; ``low`` and ``high`` are NaN where there is no interval."""

    mean: float
    low: float
    high: float


def pass_at_k(n: ArrayLike, c: ArrayLike, k: int) -> Floats:
    """The unbiased estimate, from ``c`` right completions of ``n``, that at least one of k is right.

        pass@k = 1 - C(n-c, k) / C(n, k) = 1 - Π_{i=0}^{k-1} (n-c-i) / (n-i)

    Chen et al. 2021, arXiv:2107.03374, eq. 1. The product cannot overflow, however large n is. ``n`` and ``c`` are
    integers or arrays of integers, broadcast; the result has their shape.

    Raises ValueError if k is below 1 or above any n, or c is not within 0 to n.
    """
    n_P, c_P = np.broadcast_arrays(np.asarray(n, dtype=np.int64), np.asarray(c, dtype=np.int64))
    if k < 1:
        raise ValueError(f"pass@k needs k of at least 1, not {k}")
    if np.any(n_P < k):
        raise ValueError(f"pass@{k} needs at least {k} completions per prompt, but one has {n_P.min()}")
    if np.any(c_P < 0) or np.any(c_P > n_P):
        raise ValueError("the number of right completions must lie between 0 and the number of completions")
    all_wrong_P = np.ones(n_P.shape)
    for i in range(k):
        all_wrong_P *= np.maximum(n_P - c_P - i, 0) / (n_P - i)
    return np.asarray(1.0 - all_wrong_P)


def majority_at_k(answers: Sequence[Sequence[str | None]], correct: Sequence[Sequence[bool]], k: int) -> Floats:
    """How often the most frequent of k answers is right, for each of P prompts (maj@k, self-consistency).

    Wang et al. 2022, arXiv:2203.11171. ``answers[p][j]`` is the normalised answer of completion j to prompt p, or None
    if it has none; ``correct[p][j]`` says whether that completion is right. The n completions of a prompt are split
    into ⌊n/k⌋ blocks of k consecutive ones; each block is an independent sample of k, so their mean is unbiased.
    Completions left over are not used.

    Ties: the vote picks one of the most frequent answers at random. A block counts the probability that this answer is
    right, so no random number is needed. Completions without an answer do not vote; a block without any vote is wrong.
    If completions with the same answer differ in ``correct``, the answer counts the share that is right.

    Raises ValueError if k is below 1, a prompt has fewer than k completions, or the two arguments differ in shape.
    """
    if k < 1:
        raise ValueError(f"maj@k needs k of at least 1, not {k}")
    values: list[float] = []
    for answers_n, correct_n in zip(answers, correct, strict=True):
        if len(answers_n) != len(correct_n):
            raise ValueError(f"a prompt has {len(answers_n)} answers, but {len(correct_n)} values of `correct`")
        if len(answers_n) < k:
            raise ValueError(f"maj@{k} needs at least {k} completions per prompt, but one has {len(answers_n)}")
        starts = range(0, len(answers_n) - k + 1, k)
        blocks = [_majority(answers_n[i : i + k], correct_n[i : i + k]) for i in starts]
        values.append(math.fsum(blocks) / len(blocks))
    return np.asarray(values, dtype=np.float64)


def bootstrap_interval(
    values_P: ArrayLike, level: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """The percentile bootstrap interval of the mean over prompts.

    Draws P values with replacement, ``resamples`` times, and takes the (1 ± level)/2 quantiles of the means (Efron
    1979). Prompts are resampled, not completions: the interval shows how much the mean would vary over other sets of
    such prompts. With P = 1 it is undefined and both ends are NaN. Equal values, such as all right or all wrong, give
    an interval of zero width, which understates the uncertainty when P is small.

    Raises ValueError if there are no values, one is not finite, ``level`` is not between 0 and 1, or ``resamples`` is
    below 1.
    """
    sample_P = np.asarray(values_P, dtype=np.float64).reshape(-1)
    if sample_P.size == 0 or not np.all(np.isfinite(sample_P)):
        raise ValueError("an interval needs at least one value, and all values must be finite")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level must lie between 0 and 1, but is {level}, and resamples above 0, but is {resamples}")
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
    # All winners have the same number of votes, so the mean over their completions is the mean over winners.
    return sum(marks) / len(marks)
