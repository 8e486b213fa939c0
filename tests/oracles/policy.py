"""The policy losses, one sequence at a time, on scalars that remember their gradient. sg[x] is x.detach()."""

import torch

from oracles.grpo import clip


def objective(ratio, advantage, eps_low, eps_high, dual_clip=None):
    """min(ρA, clip(ρ)A), and for A < 0 with a dual clip c the larger of that and cA."""
    value = min(ratio * advantage, clip(ratio, 1 - eps_low, 1 + eps_high) * advantage)
    if dual_clip is not None and advantage < 0:
        value = max(value, dual_clip * advantage)
    return value


def policy_gradient(logprobs, advantages):
    return [-advantage * logprob for logprob, advantage in zip(logprobs, advantages, strict=True)]


def clipped(logprobs, old, advantages, **bounds):
    tokens = zip(logprobs, old, advantages, strict=True)
    return [-objective(torch.exp(logprob - o), advantage, **bounds) for logprob, o, advantage in tokens]


def kl_penalised(logprobs, old, advantages, beta):
    terms = []
    for logprob, o, advantage in zip(logprobs, old, advantages, strict=True):
        ratio = torch.exp(logprob - o)
        terms.append(-(ratio * advantage - beta * (ratio - 1 - torch.log(ratio))))
    return terms


def sequence_ratio(logprobs, old, mask):
    """(π(o)/π_old(o))^(1/|o|), the geometric mean of the tokens' ratios."""
    product, length = torch.tensor(1.0, dtype=torch.float64), 0
    for logprob, o, counts in zip(logprobs, old, mask, strict=True):
        if counts:
            product = product * torch.exp(logprob - o)
            length += 1
    return product ** (1 / length) if length else product


def sequence(logprobs, old, advantages, mask, **bounds):
    """GSPO's one term, at each token."""
    kept = [advantage for advantage, counts in zip(advantages, mask, strict=True) if counts]
    mean = sum(kept) / len(kept) if kept else 0.0
    term = -objective(sequence_ratio(logprobs, old, mask), mean, **bounds)
    return [term for _ in logprobs]


def sequence_token(logprobs, old, advantages, mask, **bounds):
    ratio = sequence_ratio(logprobs, old, mask).detach()
    terms = []
    for logprob, advantage in zip(logprobs, advantages, strict=True):
        token_ratio = ratio * torch.exp(logprob) / torch.exp(logprob).detach()
        terms.append(-objective(token_ratio, advantage, **bounds))
    return terms


def clipped_weight(logprobs, old, advantages, eps_high, eps_low=None):
    """CISPO. Without a lower bound the weight is only capped."""
    terms = []
    for logprob, o, advantage in zip(logprobs, old, advantages, strict=True):
        weight = torch.exp(logprob - o).detach()
        low = 0 if eps_low is None else 1 - eps_low
        terms.append(-clip(weight, low, 1 + eps_high) * advantage * logprob)
    return terms
