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
    """log π − log π', in nats. Where one is −∞ it is ±10,000, without a gradient."""
    return (logprobs - other_logprobs).nan_to_num(nan=math.nan, posinf=INFINITE_NATS, neginf=-INFINITE_NATS)


def ratio(log_ratios: Tensor) -> Tensor:
    """e^x, bounded."""
    return log_ratios.clamp(max=BOUND_NATS).exp() + _beyond(log_ratios)


def ratio_less_1(log_ratios: Tensor) -> Tensor:
    """e^x − 1, bounded, and exact near 0."""
    return log_ratios.clamp(max=BOUND_NATS).expm1() + _beyond(log_ratios)


def _beyond(log_ratios: Tensor) -> Tensor:
    return math.exp(BOUND_NATS) * torch.relu(log_ratios - BOUND_NATS)
