r"""Ratios of two probabilities from the difference x of their logarithms, bounded so that no token can break a run.

e^x overflows float32 above 88 nats, and its square, which the gradient norm needs, above 44. So beyond 20 nats the
ratio continues along its tangent,

.. math:: e^x \text{ up to } b = 20, \qquad e^b (1 + x - b) \text{ beyond,}

which keeps value and gradient finite and of the same sign. Up to the bound it is e^x, bit for bit. Sampled tokens
do not come near it: a token that π_ref finds e²⁰ times more likely has a probability of at most e⁻²⁰ = 2·10⁻⁹.
"""

import math

import torch
from torch import Tensor

BOUND_NATS = 20.0
"""The log-ratio beyond which a ratio continues along its tangent."""
INFINITE_NATS = 1e4
"""The value used for an infinite log-ratio, of a token to which one of the two gives probability 0."""


def log_ratio(logprobs: Tensor, other_logprobs: Tensor) -> Tensor:
    """log π − log π', in nats. Where one is −∞ it is ±10,000, without gradient. NaN stays NaN."""
    difference = logprobs - other_logprobs
    return torch.where(difference.isinf(), INFINITE_NATS * difference.detach().sign(), difference)


def ratio(log_ratios: Tensor) -> Tensor:
    """e^x, bounded."""
    return _up_to_the_bound(log_ratios).exp() + _beyond(log_ratios)


def ratio_less_1(log_ratios: Tensor) -> Tensor:
    """e^x − 1, bounded, and exact near 0."""
    return _up_to_the_bound(log_ratios).expm1() + _beyond(log_ratios)


def _up_to_the_bound(log_ratios: Tensor) -> Tensor:
    # Not clamp, whose gradient at NaN is 0: a NaN must reach the gradient norm to be detected.
    return torch.where(log_ratios > BOUND_NATS, BOUND_NATS, log_ratios)


def _beyond(log_ratios: Tensor) -> Tensor:
    return math.exp(BOUND_NATS) * torch.relu(log_ratios - BOUND_NATS)
