"""Policy-gradient surrogates. Each returns one term per token; ``losses.reduce`` says how terms are weighted.

Arguments common to all: ``logprobs_ET`` is log π, with gradient, in nats; ``old_logprobs_ET`` is log π_old and
``advantages_ET`` the advantage of each token, both without gradient. The ratio is ρ = π/π_old, which is bounded
beyond e²⁰ (`sharpen.functional.losses.ratio`). ``unclipped`` marks the terms that carry a gradient; it is false where
clipping removes it.
"""

import torch
from torch import Tensor

from sharpen.functional.losses.kl import k3
from sharpen.functional.losses.ratio import log_ratio, ratio


def policy_gradient(logprobs_ET: Tensor, advantages_ET: Tensor) -> Tensor:
    r"""The log-likelihood weighted by the advantage (Williams 1992), to be minimised.

    .. math:: L_t = -A_t \log π_t

    REINFORCE; with A = 1 supervised fine-tuning; with A = 1 for right answers rejection sampling.
    """
    return -advantages_ET * logprobs_ET


def clipped_surrogate(
    logprobs_ET: Tensor,
    old_logprobs_ET: Tensor,
    advantages_ET: Tensor,
    *,
    eps_low: float,
    eps_high: float,
    dual_clip: float | None = None,
) -> tuple[Tensor, Tensor]:
    r"""PPO's clipped surrogate with the ratio taken per token, to be minimised.

    .. math:: L_t = -\min(\rho_t A_t,\ \mathrm{clip}(\rho_t, 1 - ε_{low}, 1 + ε_{high})\, A_t),
              \quad \rho_t = \exp(\log π_t - \log π_{old,t})

    Schulman et al. 2017 (arXiv 1707.06347), eq. 7, with the two bounds of DAPO (arXiv 2503.14476), eq. 10. The
    minimum is over the products: with a negative advantage, a token whose ratio has grown keeps its gradient.
    ``dual_clip`` c > 1 bounds that case: for A < 0 the objective is never below cA (Ye et al. 2020, arXiv
    1912.09729).

    Returns:
        The terms, and where they are not clipped: A ≥ 0 and ρ ≤ 1 + ε_high, or A < 0 and 1 − ε_low ≤ ρ (≤ c).

    Raises:
        ValueError: ``dual_clip`` is not above 1.
    """
    ratio_ET = ratio(log_ratio(logprobs_ET, old_logprobs_ET))
    return _clipped(ratio_ET, advantages_ET, eps_low, eps_high, dual_clip)


def kl_penalised_surrogate(
    logprobs_ET: Tensor, old_logprobs_ET: Tensor, advantages_ET: Tensor, *, beta: float
) -> Tensor:
    r"""PPO with a KL penalty instead of clipping (arXiv 1707.06347, eq. 8), to be minimised.

    .. math:: L_t = -\rho_t A_t + β\,(\rho_t - 1 - \log \rho_t)

    The bracket is k3 with the roles exchanged: never negative, and on tokens sampled from π_old an unbiased estimate
    of KL(π_old ‖ π) with its gradient in expectation. The gradient coefficient is ρA + β(1 − ρ).
    """
    ratio_ET = ratio(log_ratio(logprobs_ET, old_logprobs_ET))
    return -ratio_ET * advantages_ET + beta * k3(old_logprobs_ET, logprobs_ET)


def sequence_ratio(logprobs_ET: Tensor, old_logprobs_ET: Tensor, mask_ET: Tensor) -> Tensor:
    r"""GSPO's length-normalised ratio of each trajectory (arXiv 2507.18071, eq. 7), [E].

    .. math:: s_i = \Big(\frac{π(o_i)}{π_{old}(o_i)}\Big)^{1/|o_i|} = \exp\Big(\frac1{|o_i|} \sum_t \log \rho_t\Big)

    Only tokens of ``mask_ET`` count; a trajectory without one has ratio 1.
    """
    return ratio(mean_log_ratio(logprobs_ET, old_logprobs_ET, mask_ET))


def mean_log_ratio(logprobs_ET: Tensor, old_logprobs_ET: Tensor, mask_ET: Tensor) -> Tensor:
    """log s_i, the logarithm of GSPO's ratio (``sequence_ratio``) of each trajectory, [E]."""
    return mean_per_trajectory(log_ratio(logprobs_ET, old_logprobs_ET), mask_ET)


def mean_per_trajectory(values_ET: Tensor, mask_ET: Tensor) -> Tensor:
    """The mean over the tokens of the mask, [E]; 0 where there is none."""
    kept_ET = values_ET.where(mask_ET, torch.zeros_like(values_ET))
    return kept_ET.sum(dim=1) / mask_ET.sum(dim=1).clamp(min=1)


def sequence_surrogate(
    logprobs_ET: Tensor,
    old_logprobs_ET: Tensor,
    advantages_ET: Tensor,
    mask_ET: Tensor,
    *,
    eps_low: float,
    eps_high: float,
    dual_clip: float | None = None,
    whole_log_ratio_E: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""GSPO: the clipped surrogate with one ratio per trajectory (arXiv 2507.18071, eq. 5), to be minimised.

    .. math:: L_i = -\min(s_i Â_i,\ \mathrm{clip}(s_i, 1 - ε_{low}, 1 + ε_{high})\, Â_i)

    Each token of ``mask_ET`` gets the whole L_i, all others 0, so that 1/|o_i| times the sum over tokens is L_i and
    ``reduce.per_sequence`` gives GSPO's loss. Â_i is the mean advantage of the trajectory's tokens: with an outcome
    reward, which is what the paper has, the advantage that they all share. The gradient coefficient of a token is
    unclipped · s_i · Â_i. A trajectory of which only a part is given has its log s_i in ``whole_log_ratio_E``, NaN for
    all others, and gets the terms of ``sequence_token_surrogate``, whose gradient is the same for a constant Â_i.

    Returns:
        The terms, and where they are not clipped, each [E, T] and the same along a trajectory.

    Raises:
        ValueError: ``dual_clip`` is not above 1.
    """
    ratio_E = sequence_ratio(logprobs_ET, old_logprobs_ET, mask_ET)
    advantages_E = mean_per_trajectory(advantages_ET, mask_ET)
    loss_E, unclipped_E = _clipped(ratio_E, advantages_E, eps_low, eps_high, dual_clip)
    loss_ET, unclipped_ET = loss_E[:, None] * mask_ET, unclipped_E[:, None].expand_as(mask_ET)
    if whole_log_ratio_E is None:
        return loss_ET, unclipped_ET
    of_tokens = sequence_token_surrogate(
        logprobs_ET,
        old_logprobs_ET,
        advantages_ET,
        mask_ET,
        eps_low=eps_low,
        eps_high=eps_high,
        dual_clip=dual_clip,
        whole_log_ratio_E=whole_log_ratio_E,
    )
    cut_E1 = ~whole_log_ratio_E.isnan()[:, None]
    return torch.where(cut_E1, of_tokens[0], loss_ET), torch.where(cut_E1, of_tokens[1], unclipped_ET)


def sequence_token_surrogate(
    logprobs_ET: Tensor,
    old_logprobs_ET: Tensor,
    advantages_ET: Tensor,
    mask_ET: Tensor,
    *,
    eps_low: float,
    eps_high: float,
    dual_clip: float | None = None,
    whole_log_ratio_E: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    r"""GSPO-token: the trajectory's ratio in value, the token's own in gradient (arXiv 2507.18071, eq. 13 and 14).

    .. math:: L_{i,t} = -\min(s_{i,t} Â_{i,t},\ \mathrm{clip}(s_{i,t}, 1 - ε_{low}, 1 + ε_{high})\, Â_{i,t}),
              \quad s_{i,t} = \mathrm{sg}[s_i]\, π_t / \mathrm{sg}[π_t]

    For advantages that differ along a trajectory. Where they do not, its gradient is that of ``sequence_surrogate``.
    ``whole_log_ratio_E`` as there.

    Returns:
        The terms, 0 outside ``mask_ET``, and where they are not clipped.

    Raises:
        ValueError: ``dual_clip`` is not above 1.
    """
    log_ratio_E = mean_log_ratio(logprobs_ET, old_logprobs_ET, mask_ET).detach()
    if whole_log_ratio_E is not None:
        log_ratio_E = torch.where(whole_log_ratio_E.isnan(), log_ratio_E, whole_log_ratio_E)
    ratio_E = ratio(log_ratio_E)
    ratio_ET = ratio_E[:, None] * (logprobs_ET - logprobs_ET.detach()).exp()
    loss_ET, unclipped_ET = _clipped(ratio_ET, advantages_ET, eps_low, eps_high, dual_clip)
    return loss_ET * mask_ET, unclipped_ET


def clipped_weight_surrogate(
    logprobs_ET: Tensor,
    old_logprobs_ET: Tensor,
    advantages_ET: Tensor,
    *,
    eps_high: float,
    eps_low: float | None = None,
) -> tuple[Tensor, Tensor]:
    r"""CISPO: the importance weight is clipped and carries no gradient, so that no token loses its own.

    .. math:: L_t = -\mathrm{sg}[\mathrm{clip}(\rho_t, 1 - ε_{low}, 1 + ε_{high})]\, A_t \log π_t

    MiniMax-M1 (arXiv 2506.13585), eq. 4 and 5. As there, only the upper bound is used unless ``eps_low`` is given.

    Returns:
        The terms, and where the weight is the ratio itself. All terms carry a gradient.
    """
    low = None if eps_low is None else 1.0 - eps_low
    ratio_ET = (logprobs_ET.detach() - old_logprobs_ET).exp()
    weight_ET = ratio_ET.clamp(low, 1.0 + eps_high)
    return -weight_ET * advantages_ET * logprobs_ET, weight_ET == ratio_ET


def truncated_importance_weights(old_logprobs_ET: Tensor, rollout_logprobs_ET: Tensor, *, cap: float) -> Tensor:
    r"""Weights that correct each token's term for a rollout by an older version of the policy, or by an engine whose
    numerics differ from the trainer's.

    .. math:: w_t = \min(π_{old,t} / π_{rollout,t},\ C)

    Truncated importance sampling: Ionides 2008; for rollout engines Yao et al. 2025. Without gradient.
    """
    return (old_logprobs_ET - rollout_logprobs_ET).exp().clamp(max=cap).detach()


def _clipped(
    ratio: Tensor, advantages: Tensor, eps_low: float, eps_high: float, dual_clip: float | None
) -> tuple[Tensor, Tensor]:
    """−min(ρA, clip(ρ)A) and where it is not clipped, for ratios of tokens or of trajectories."""
    loss = -(ratio * advantages).minimum(ratio.clamp(1.0 - eps_low, 1.0 + eps_high) * advantages)
    positive = advantages >= 0
    unclipped = torch.where(positive, ratio <= 1.0 + eps_high, ratio >= 1.0 - eps_low)
    if dual_clip is not None:
        if dual_clip <= 1.0:
            raise ValueError(f"dual_clip must be above 1, not {dual_clip}")
        beyond_dual = ~positive & (ratio > dual_clip)
        loss = torch.where(beyond_dual, -dual_clip * advantages, loss)
        unclipped = unclipped & ~beyond_dual
    return loss, unclipped
