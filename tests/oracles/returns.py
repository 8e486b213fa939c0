"""Returns, temporal differences and process advantages of one sequence, each as the sum that its paper writes."""

import math

from oracles.advantages import has_spread, mean, standard_deviation


def kept(mask):
    return [t for t, counts in enumerate(mask) if counts]


def reward_to_go(rewards, mask, gamma):
    """Σ_{l ≥ 0} γ^l R_{t+l}, time running over the tokens of the mask."""
    tokens, result = kept(mask), [0.0] * len(mask)
    for i, t in enumerate(tokens):
        result[t] = sum(gamma**l * rewards[s] for l, s in enumerate(tokens[i:]))
    return result


def td_targets(rewards, values, mask, gamma, bootstrap=0.0):
    tokens, result = kept(mask), [0.0] * len(mask)
    for i, t in enumerate(tokens):
        result[t] = rewards[t] + gamma * (values[tokens[i + 1]] if i + 1 < len(tokens) else bootstrap)
    return result


def gae(rewards, values, mask, gamma, lam, bootstrap=0.0):
    """Σ_{l ≥ 0} (γλ)^l δ_{t+l}"""
    tokens, result = kept(mask), [0.0] * len(mask)
    targets = td_targets(rewards, values, mask, gamma, bootstrap)
    errors = [targets[t] - values[t] for t in tokens]
    for i, t in enumerate(tokens):
        result[t] = sum((gamma * lam) ** l * error for l, error in enumerate(errors[i:]))
    return result


def process_advantages(step_rewards, mask, groups, *, mode, std, ddof, eps):
    """DeepSeekMath 4.1.3. ``step_rewards[i]`` maps the last token of each step to its reward."""
    result = []
    for i in range(len(mask)):
        pool = [r for j in range(len(mask)) if groups[j] == groups[i] for r in step_rewards[j].values()]
        row = []
        for t in range(len(mask[i])):
            ends = sorted(end for end in step_rewards[i] if end >= t)
            if mode == "own":
                ends = ends[:1]
            row.append(0.0)
            if mask[i][t] and pool and has_spread(pool):
                spread = standard_deviation(pool, ddof) + eps if std == "group" else 1.0
                row[t] = math.fsum((step_rewards[i][end] - mean(pool)) / spread for end in ends)
        result.append(row)
    return result
