"""Returns, TD targets and GAE over the tokens of a completion.

Time runs over the tokens of ``mask_BT`` only. Tokens between them, such as a tool's reply, are skipped: they have no
reward and no value, are not discounted and get 0. The state after a token is the state before the next token of the
mask.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def at_last_token(rewards_B: Tensor, mask_BT: Tensor) -> Tensor:
    """The reward of each sequence at its last token of the mask, 0 elsewhere and for a missing reward (NaN), [B, T]."""
    known_B = rewards_B.masked_fill(rewards_B.isnan(), 0.0)
    return torch.where(_last(mask_BT), known_B[:, None], torch.zeros_like(known_B)[:, None])


def at_last(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """The value at each sequence's last token of the mask, 0 for a sequence without one, [B]."""
    return (values_BT * _last(mask_BT)).sum(dim=1)


def reward_to_go(rewards_BT: Tensor, mask_BT: Tensor, *, gamma: float = 1.0) -> Tensor:
    r"""The discounted sum of the rewards from each token on, [B, T].

    .. math:: R_t + γ R_{t+1} + γ^2 R_{t+2} + …
    """
    sums_BT = torch.zeros_like(rewards_BT)
    after_B = rewards_BT.new_zeros(len(rewards_BT))
    for t in reversed(range(rewards_BT.shape[1])):
        after_B = torch.where(mask_BT[:, t], rewards_BT[:, t] + gamma * after_B, after_B)
        sums_BT[:, t] = after_B
    return sums_BT.where(mask_BT, torch.zeros_like(sums_BT))


def td_targets(
    rewards_BT: Tensor,
    values_BT: Tensor,
    mask_BT: Tensor,
    *,
    gamma: float,
    bootstrap_B: Tensor | None = None,
) -> Tensor:
    r"""TD(0) targets of a critic's values, [B, T].

    .. math:: y_t = R_t + γ V_{t+1}

    Args:
        rewards_BT: R, the reward of each token.
        values_BT: V, the value of the state in which the token was chosen.
        gamma: γ, the discount per token.
        bootstrap_B: V after the last token of the mask, for truncated completions; 0 if not given.
    """
    end_B = values_BT.new_zeros(len(values_BT)) if bootstrap_B is None else bootstrap_B.to(values_BT.dtype)
    following_BT = torch.cat([values_BT, end_B[:, None]], dim=1).gather(1, next_marked(mask_BT)[:, 1:])
    return (rewards_BT + gamma * following_BT).where(mask_BT, torch.zeros_like(values_BT))


def gae(
    rewards_BT: Tensor,
    values_BT: Tensor,
    mask_BT: Tensor,
    *,
    gamma: float,
    lam: float,
    bootstrap_B: Tensor | None = None,
) -> Tensor:
    r"""Generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438, eq. 16), [B, T].

    .. math:: A_t = δ_t + γλ A_{t+1}, \quad δ_t = R_t + γ V_{t+1} - V_t

    A + V is the λ-return, the usual target of the critic. Arguments as in ``td_targets``; λ = 0 gives the error δ,
    λ = 1 the return minus the value.
    """
    targets_BT = td_targets(rewards_BT, values_BT, mask_BT, gamma=gamma, bootstrap_B=bootstrap_B)
    return reward_to_go(targets_BT - values_BT, mask_BT, gamma=gamma * lam)


def sum_from(values_BT: Tensor) -> Tensor:
    """The sum of the values from each position on, [B, T]."""
    return values_BT.flip(1).cumsum(dim=1).flip(1)


def next_marked(marked_BT: Tensor) -> Tensor:
    """The first marked position at or after each of the positions 0 … T, T where there is none, [B, T + 1]."""
    T = marked_BT.shape[1]
    positions_BT = torch.where(marked_BT, torch.arange(T, device=marked_BT.device), T)
    return F.pad(positions_BT, (0, 1), value=T).flip(1).cummin(dim=1).values.flip(1)


def _last(mask_BT: Tensor) -> Tensor:
    return mask_BT & (sum_from(mask_BT.long()) == 1)
