"""Returns, TD targets and GAE over the tokens of a completion.

Time runs over the tokens of ``mask_ET`` only. Tokens between them, such as a tool's reply, are skipped: they have no
reward and no value, are not discounted and get 0. The state after a token is the state before the next token of the
mask.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def at_last_token(rewards_E: Tensor, mask_ET: Tensor) -> Tensor:
    """The reward of each trajectory at its last token of the mask; 0 elsewhere, and for a missing one (NaN), [E, T]."""
    known_E = rewards_E.masked_fill(rewards_E.isnan(), 0.0)
    return torch.where(_last(mask_ET), known_E[:, None], torch.zeros_like(known_E)[:, None])


def at_last(values_ET: Tensor, mask_ET: Tensor) -> Tensor:
    """The value at each trajectory's last token of the mask, 0 for a trajectory without one, [E]."""
    return (values_ET * _last(mask_ET)).sum(dim=1)


def reward_to_go(rewards_ET: Tensor, mask_ET: Tensor, *, gamma: float = 1.0) -> Tensor:
    r"""The discounted sum of the rewards from each token on, [E, T].

    .. math:: R_t + γ R_{t+1} + γ^2 R_{t+2} + …
    """
    sums_ET = torch.zeros_like(rewards_ET)
    after_E = rewards_ET.new_zeros(len(rewards_ET))
    for t in reversed(range(rewards_ET.shape[1])):
        after_E = torch.where(mask_ET[:, t], rewards_ET[:, t] + gamma * after_E, after_E)
        sums_ET[:, t] = after_E
    return sums_ET.where(mask_ET, torch.zeros_like(sums_ET))


def td_targets(
    rewards_ET: Tensor,
    values_ET: Tensor,
    mask_ET: Tensor,
    *,
    gamma: float,
    bootstrap_E: Tensor | None = None,
) -> Tensor:
    r"""TD(0) targets of a critic's values, [E, T].

    .. math:: y_t = R_t + γ V_{t+1}

    Args:
        rewards_ET: R, the reward of each token.
        values_ET: V, the value of the state in which the token was chosen.
        gamma: γ, the discount per token.
        bootstrap_E: V after the last token of the mask, for truncated completions; 0 if not given.
    """
    end_E = values_ET.new_zeros(len(values_ET)) if bootstrap_E is None else bootstrap_E.to(values_ET.dtype)
    following_ET = torch.cat([values_ET, end_E[:, None]], dim=1).gather(1, next_marked(mask_ET)[:, 1:])
    return (rewards_ET + gamma * following_ET).where(mask_ET, torch.zeros_like(values_ET))


def gae(
    rewards_ET: Tensor,
    values_ET: Tensor,
    mask_ET: Tensor,
    *,
    gamma: float,
    lam: float,
    bootstrap_E: Tensor | None = None,
) -> Tensor:
    r"""Generalised advantage estimation (Schulman et al. 2015, arXiv 1506.02438, eq. 16), [E, T].

    .. math:: A_t = δ_t + γλ A_{t+1}, \quad δ_t = R_t + γ V_{t+1} - V_t

    A + V is the λ-return, the usual target of the critic. Arguments as in ``td_targets``; λ = 0 gives the error δ,
    λ = 1 the return minus the value.
    """
    targets_ET = td_targets(rewards_ET, values_ET, mask_ET, gamma=gamma, bootstrap_E=bootstrap_E)
    return reward_to_go(targets_ET - values_ET, mask_ET, gamma=gamma * lam)


def sum_from(values_ET: Tensor) -> Tensor:
    """The sum of the values from each position on, [E, T]."""
    return values_ET.flip(1).cumsum(dim=1).flip(1)


def next_marked(marked_ET: Tensor) -> Tensor:
    """The first marked position at or after each of the positions 0 … T, T where there is none, [E, T + 1]."""
    T = marked_ET.shape[1]
    positions_ET = torch.where(marked_ET, torch.arange(T, device=marked_ET.device), T)
    return F.pad(positions_ET, (0, 1), value=T).flip(1).cummin(dim=1).values.flip(1)


def _last(mask_ET: Tensor) -> Tensor:
    return mask_ET & (sum_from(mask_ET.long()) == 1)
