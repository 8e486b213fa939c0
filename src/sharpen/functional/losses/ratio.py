r"""Ratios of two probabilities from the difference x of their logarithms, so that no single token can end a run.

e^x overflows float32 above 88 nats, and its square, which the norm of a gradient needs, above 44. So from 20 nats on a
ratio grows along its tangent,

.. math:: e^x \text{ up to } b = 20, \qquad e^b (1 + x - b) \text{ beyond,}

which keeps value and gradient finite and of the same sign. Up to the bound all is e^x, bit for bit. What a policy draws
does not come near it: a token that π_ref holds for e²⁰ times more likely has a probability of at most e⁻²⁰ = 2·10⁻⁹.
"""

import math

import torch
from torch import Tensor

BOUND_NATS = 20.0
"""Where a ratio goes on along its tangent."""
INFINITE_NATS = 1e4
"""What an infinite log-ratio counts as: that of a token to which one of the two gives no probability at all."""


def log_ratio(logprobs: Tensor, other_logprobs: Tensor) -> Tensor:
    """log π − log π', in nats. Where one is −∞ it is ±10,000, without a gradient. What is no number stays so."""
    difference = logprobs - other_logprobs
    return torch.where(difference.isinf(), INFINITE_NATS * difference.detach().sign(), difference)


def ratio(log_ratios: Tensor) -> Tensor:
    """e^x, bounded."""
    return _up_to_the_bound(log_ratios).exp() + _beyond(log_ratios)


def ratio_less_1(log_ratios: Tensor) -> Tensor:
    """e^x − 1, bounded, and exact near 0."""
    return _up_to_the_bound(log_ratios).expm1() + _beyond(log_ratios)


def _up_to_the_bound(log_ratios: Tensor) -> Tensor:
    # Not clamp, whose gradient at NaN is 0: a step that is no number must be seen to be none.
    return torch.where(log_ratios > BOUND_NATS, BOUND_NATS, log_ratios)


def _beyond(log_ratios: Tensor) -> Tensor:
    return math.exp(BOUND_NATS) * torch.relu(log_ratios - BOUND_NATS)
