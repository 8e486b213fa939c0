"""Truncation of a distribution, and the choice of a token by its inverse cumulative distribution."""

import math


def softmax(logits):
    largest = max(logits)
    exponentials = [math.exp(logit - largest) for logit in logits]
    total = math.fsum(exponentials)
    return [exponential / total for exponential in exponentials]


def only(probabilities, kept):
    total = math.fsum(probabilities[v] for v in kept)
    return [probabilities[v] / total if v in kept else 0.0 for v in range(len(probabilities))]


def truncated(logits, *, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    """The distribution that a token is drawn from. Off: top_k=0, top_p=1, min_p=0."""
    if temperature == 0:
        return only([1.0] * len(logits), {logits.index(max(logits))})
    probabilities = softmax([logit / temperature for logit in logits])
    order = sorted(range(len(logits)), key=lambda v: -probabilities[v])
    if 0 < top_k < len(logits):
        probabilities = only(probabilities, set(order[:top_k]))
    if top_p < 1:
        kept, reached = set(), 0.0
        for v in order:
            kept.add(v)
            reached += probabilities[v]
            if reached >= top_p:
                break
        probabilities = only(probabilities, kept)
    if min_p > 0:
        largest = max(probabilities)
        probabilities = only(probabilities, {v for v, p in enumerate(probabilities) if p > 0 and p >= min_p * largest})
    return probabilities


def inverse_cdf(probabilities, uniform):
    """The first token whose cumulative probability exceeds ``uniform``."""
    reached = 0.0
    last = None
    for token, probability in enumerate(probabilities):
        if probability == 0:
            continue
        last = token
        reached += probability
        if reached > uniform:
            return token
    return last


def interval(probabilities, token):
    """The uniform numbers from which ``token`` is chosen: from the first, up to the second."""
    start = math.fsum(probabilities[:token])
    return start, start + probabilities[token]
