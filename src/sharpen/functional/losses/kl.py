"""KL(π ‖ π_ref), estimated from the log-probabilities of sampled tokens or exact. Per token, in nats.

With r = π_ref/π. As a value, k1 and k3 are unbiased for tokens drawn from π, and k2 is not. As a loss on such tokens
they differ otherwise: k1's expected gradient is zero, k2's is that of KL(π ‖ π_ref), k3's that of KL(π_ref ‖ π). So
k1 belongs into the reward, and the others into the loss (Schulman 2020, http://joschu.net/blog/kl-approx.html).

Where π is e²⁰ times less likely than π_ref, or less still, r is bounded (`sharpen.functional.losses.ratio`): k3 then
grows linearly, and so pulls the token up as before while value and gradient stay finite.
"""

import torch
from torch import Tensor

from sharpen.functional.losses.ratio import BOUND_NATS, log_ratio, ratio, ratio_less_1


def k1(logprobs_BT: Tensor, ref_logprobs_BT: Tensor) -> Tensor:
    r"""Unbiased, with high variance; negative for some tokens.

    .. math:: k_1 = -\log r = \log π - \log π_{ref}
    """
    return log_ratio(logprobs_BT, ref_logprobs_BT)


def k2(logprobs_BT: Tensor, ref_logprobs_BT: Tensor) -> Tensor:
    r"""Biased, with low variance; never negative. Minus β times it adds β log r to the gradient coefficient.

    .. math:: k_2 = \tfrac12 (\log r)^2
    """
    return 0.5 * log_ratio(ref_logprobs_BT, logprobs_BT).square()


def k3(logprobs_BT: Tensor, ref_logprobs_BT: Tensor) -> Tensor:
    r"""Schulman's k3, the estimator of GRPO (DeepSeekMath, arXiv 2402.03300, eq. 4).

    .. math:: k_3 = r - \log r - 1, \quad r = π_{ref} / π

    Never negative, and unbiased as a value for tokens drawn from π. Its gradient coefficient is 1 − r, so that
    minus β times it adds β(r − 1) to the policy's. From log r = 20 on r is e²⁰ (log r − 19), and its part of the
    coefficient e²⁰.
    """
    log_r_BT = log_ratio(ref_logprobs_BT, logprobs_BT)
    return ratio_less_1(log_r_BT) - log_r_BT


def weighted_k3(logprobs_BT: Tensor, old_logprobs_BT: Tensor, ref_logprobs_BT: Tensor) -> Tensor:
    r"""k3 corrected for tokens drawn from π_old (DeepSeek-V3.2, arXiv 2512.02556).

    .. math:: \rho\, k_3, \quad \rho = π / π_{old}

    Unbiased as a value for tokens drawn from π_old. The gradient goes through both factors, and in expectation is
    that of KL(π ‖ π_ref): minus β times it adds βρ log r to the policy's coefficient. From log r = 20 on it is written
    as π_ref/π_old − ρ (log r + 1), which is the same with that gradient, whatever the bounded first part.
    """
    ratio_BT, log_r_BT = ratio(log_ratio(logprobs_BT, old_logprobs_BT)), log_ratio(ref_logprobs_BT, logprobs_BT)
    far_BT = ratio(log_ratio(ref_logprobs_BT, old_logprobs_BT)) - ratio_BT * (log_r_BT + 1.0)
    return torch.where(log_r_BT > BOUND_NATS, far_BT, ratio_BT * (ratio_less_1(log_r_BT) - log_r_BT))


def exact_kl(logprobs_NV: Tensor, ref_logprobs_NV: Tensor) -> Tensor:
    r"""The divergence itself, from the log-probabilities of the whole vocabulary, [N].

    .. math:: KL(π ‖ π_{ref}) = \sum_v π_v (\log π_v - \log π_{ref,v})

    A token that π never writes (log π = −∞) adds nothing; one that only π_ref never writes makes it infinite.
    """
    never_NV = logprobs_NV == -torch.inf
    difference_NV = (logprobs_NV - ref_logprobs_NV).masked_fill(never_NV, 0.0)
    return (logprobs_NV.exp() * difference_NV).sum(dim=-1)
