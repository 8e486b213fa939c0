"""Policy-gradient surrogates. Each returns one term per token; ``losses.reduce`` says how terms are weighed."""

from torch import Tensor


def clipped_surrogate(
    logprobs_BT: Tensor,
    old_logprobs_BT: Tensor,
    advantages_BT: Tensor,
    *,
    eps_low: float,
    eps_high: float,
) -> tuple[Tensor, Tensor]:
    r"""PPO's clipped surrogate with the ratio taken per token, to be minimised.

    .. math:: L_t = -\min(\rho_t A_t,\ \mathrm{clip}(\rho_t, 1 - ε_{low}, 1 + ε_{high})\, A_t),
              \quad \rho_t = \exp(\log π_t - \log π_{old,t})

    Schulman et al. 2017 (arXiv 1707.06347), eq. 7, with the two bounds of DAPO (arXiv 2503.14476), eq. 10. The
    minimum is over the products: for a negative advantage it keeps the gradient of a token whose ratio has grown.

    Args:
        logprobs_BT: log π, with gradient, in nats.
        old_logprobs_BT: log π_old, without gradient.
        advantages_BT: the advantage of each token.

    Returns:
        The terms, and where they carry a gradient ("live"): A ≥ 0 and ρ ≤ 1 + ε_high, or A < 0 and ρ ≥ 1 − ε_low.
    """
    ratio_BT = (logprobs_BT - old_logprobs_BT).exp()
    clipped_BT = ratio_BT.clamp(1.0 - eps_low, 1.0 + eps_high)
    loss_BT = -(ratio_BT * advantages_BT).minimum(clipped_BT * advantages_BT)
    rising = advantages_BT >= 0
    live_BT = (rising & (ratio_BT <= 1.0 + eps_high)) | (~rising & (ratio_BT >= 1.0 - eps_low))
    return loss_BT, live_BT
