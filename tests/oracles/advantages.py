"""Advantages of whole sequences, such as DeepSeekMath 4.1.2: all tokens of completion i get (r_i − mean r) / std r."""

import math
from fractions import Fraction


def mean(values):
    return math.fsum(values) / len(values)


def standard_deviation(values, ddof):
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - ddof))


def has_spread(values):
    """False where the values are the same but for rounding, 8 units of 2⁻⁵² of the largest. The difference is exact."""
    return Fraction(max(values)) - Fraction(min(values)) > Fraction(8, 2**52) * max(abs(Fraction(v)) for v in values)


def outcome_advantages(rewards, groups, *, std="group", ddof=1, eps=0.0):
    """One advantage per sequence. A NaN reward is a missing one: it gets 0 and the others do not see it."""
    present = [not math.isnan(reward) for reward in rewards]
    everything = [reward for reward, here in zip(rewards, present, strict=True) if here]
    advantages = []
    for i in range(len(rewards)):
        group = [rewards[j] for j in range(len(rewards)) if groups[j] == groups[i] and present[j]]
        if not present[i] or not has_spread(group):
            advantages.append(0.0)
            continue
        centred = rewards[i] - mean(group)
        if std == "group":
            advantages.append(centred / (standard_deviation(group, ddof) + eps))
        elif std == "batch":
            advantages.append(centred / (standard_deviation(everything, ddof) + eps))
        else:
            advantages.append(centred)
    return advantages


def leave_one_out(rewards, groups):
    """r_i less the mean of the other rewards of its group that are there (RLOO)."""
    advantages = []
    for i in range(len(rewards)):
        others = [
            rewards[j] for j in range(len(rewards)) if j != i and groups[j] == groups[i] and not math.isnan(rewards[j])
        ]
        missing = math.isnan(rewards[i]) or not others
        advantages.append(0.0 if missing or not has_spread([rewards[i], *others]) else rewards[i] - mean(others))
    return advantages


def whitened(rows, mask, *, centre=True):
    """Every number that counts, less the mean of all of them and over their standard deviation (n − 1)."""
    numbers = [x for row, kept in zip(rows, mask, strict=True) for x, counts in zip(row, kept, strict=True) if counts]
    shift = 0.0 if centre else mean(numbers)
    scale = 1 / standard_deviation(numbers, 1) if has_spread(numbers) else 0.0
    return [
        [scale * (x - mean(numbers)) + shift if counts else 0.0 for x, counts in zip(row, kept, strict=True)]
        for row, kept in zip(rows, mask, strict=True)
    ]


def decoupled(parts, groups, weights, *, ddof=1):
    """GDPO: z-scores of each reward in its group, weighted and added, then whitened over the batch."""
    scores = [outcome_advantages([row[k] for row in parts], groups, ddof=ddof) for k in range(len(weights))]
    summed = [math.fsum(w * s[i] for w, s in zip(weights, scores, strict=True)) for i in range(len(parts))]
    here = [not all(math.isnan(part) for part in row) for row in parts]
    batch = [value for value, is_here in zip(summed, here, strict=True) if is_here]
    if not has_spread(batch):
        return [0.0] * len(parts)
    spread = standard_deviation(batch, ddof)
    return [(value - mean(batch)) / spread if is_here else 0.0 for value, is_here in zip(summed, here, strict=True)]
