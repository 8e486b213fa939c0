"""Outcome advantages (DeepSeekMath, section 4.1.2): all tokens of completion i get (r_i − mean r) / std r."""

import math


def mean(values):
    return math.fsum(values) / len(values)


def standard_deviation(values, ddof):
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - ddof))


def has_spread(values):
    """False where the values are the same but for rounding."""
    return max(values) - min(values) > 1e-6 * max(1.0, max(abs(value) for value in values))


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
