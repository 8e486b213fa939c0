"""Categorical distributions over a vocabulary, as lists of probabilities."""

import math


def softmax(logits, temperature=1.0):
    highest = max(logits)
    powers = [math.exp((logit - highest) / temperature) for logit in logits]
    total = math.fsum(powers)
    return [power / total for power in powers]


def entropy(probabilities):
    """−Σ_v p log p."""
    return -math.fsum(p * math.log(p) for p in probabilities if p > 0)


def kl(probabilities, others):
    """KL(p ‖ q) = Σ_v p log(p / q)."""
    return math.fsum(p * math.log(p / q) for p, q in zip(probabilities, others, strict=True) if p > 0)
