"""KL(π ‖ π_ref), estimated from the log-probabilities of sampled tokens or exact. Per token, in nats.

With r = π_ref/π. As a value, k1 and k3 are unbiased for tokens sampled from π, and k2 is not. As a loss on such
tokens: k1's expected gradient is zero, k2's is that of KL(π ‖ π_ref), k3's that of KL(π_ref ‖ π). So
k1 belongs in the reward, and the others in the loss (Schulman 2020, http://joschu.net/blog/kl-approx.html).

Where π is e²⁰ times or more below π_ref, r is bounded (`sharpen.functional.losses.ratio`): k3 then grows linearly and
still raises the token's probability, while value and gradient stay finite.
"""

import torch
from torch import Tensor

from sharpen.functional.losses.ratio import BOUND_NATS, log_ratio, ratio, ratio_less_1


def k1(logprobs_ET: Tensor, ref_logprobs_ET: Tensor) -> Tensor:
    r"""Unbiased, with high variance; negative for some tokens.

    .. math:: k_1 = -\log r = \log π - \log π_{ref}
    """
    return log_ratio(logprobs_ET, ref_logprobs_ET)


def k2(logprobs_ET: Tensor, ref_logprobs_ET: Tensor) -> Tensor:
    r"""Biased, with low variance; never negative. As a penalty it adds β log r to the gradient coefficient.

    .. math:: k_2 = \tfrac12 (\log r)^2
    """
    return 0.5 * log_ratio(ref_logprobs_ET, logprobs_ET).square()


def k3(logprobs_ET: Tensor, ref_logprobs_ET: Tensor) -> Tensor:
    r"""Schulman's k3, the estimator of GRPO (DeepSeekMath, arXiv 2402.03300, eq. 4).

    .. math:: k_3 = r - \log r - 1, \quad r = π_{ref} / π

    Never negative, and unbiased as a value for tokens sampled from π. Its gradient coefficient is 1 − r, so as a
    penalty it adds β(r − 1) to the policy's. From log r = 20 on r is e²⁰ (log r − 19), and its part of the
    coefficient e²⁰.
    """
    log_r_ET = log_ratio(ref_logprobs_ET, logprobs_ET)
    return ratio_less_1(log_r_ET) - log_r_ET


def weighted_k3(logprobs_ET: Tensor, old_logprobs_ET: Tensor, ref_logprobs_ET: Tensor) -> Tensor:
    r"""k3 corrected for tokens sampled from π_old (DeepSeek-V3.2, arXiv 2512.02556).

    .. math:: \rho\, k_3, \quad \rho = π / π_{old}

    Unbiased as a value for tokens sampled from π_old. The gradient goes through both factors, and in expectation is
    that of KL(π ‖ π_ref): as a penalty it adds βρ log r to the policy's coefficient. From log r = 20 on it is computed
    as π_ref/π_old − ρ (log r + 1), which has the same value and that gradient, although the first part is bounded.
    """
    ratio_ET, log_r_ET = ratio(log_ratio(logprobs_ET, old_logprobs_ET)), log_ratio(ref_logprobs_ET, logprobs_ET)
    far_ET = ratio(log_ratio(ref_logprobs_ET, old_logprobs_ET)) - ratio_ET * (log_r_ET + 1.0)
    return torch.where(log_r_ET > BOUND_NATS, far_ET, ratio_ET * (ratio_less_1(log_r_ET) - log_r_ET))


def exact_kl(logprobs_NV: Tensor, ref_logprobs_NV: Tensor) -> Tensor:
    r"""The exact divergence, from the log-probabilities of the whole vocabulary, [N].

    .. math:: KL(π ‖ π_{ref}) = \sum_v π_v (\log π_v - \log π_{ref,v})

    A token that π never samples (log π = −∞) adds nothing; one that only π_ref never samples makes it infinite.
    """
    never_NV = logprobs_NV == -torch.inf
    difference_NV = (logprobs_NV - ref_logprobs_NV).masked_fill(never_NV, 0.0)
    return (logprobs_NV.exp() * difference_NV).sum(dim=-1)
