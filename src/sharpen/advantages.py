"""What a reward means for the policy: pure functions of tensors."""

from typing import Literal

import torch
from torch import Tensor

Spread = Literal["group", "batch", "none"]

ZERO_SPREAD = 1e-6
"""Rewards of a group that differ by less than this, relative to their size, are equal but for rounding."""


def group_advantages(
    rewards_B: Tensor, group_B: Tensor, *, std: Spread = "group", ddof: int = 1, eps: float = 0.0
) -> Tensor:
    r"""Rewards relative to their group, GRPO's outcome supervision (DeepSeekMath, arXiv 2402.03300, section 4.1.2).

    .. math:: Â_i = (r_i - \mathrm{mean}\,r) / (\mathrm{std}\,r + ε)

    The paper leaves ddof open; 1 divides by G − 1, 0 by G. A group without spread has advantage 0.

    Args:
        rewards_B: one reward per sequence; NaN takes no part and gets advantage 0.
        group_B: the group of each sequence, integers from 0.
        std: spread of the group, of all rewards of the batch, or no division.
        ddof: degrees of freedom taken off the count in the spread, 0 or 1.
        eps: added to the spread.

    Returns:
        One advantage per sequence, [B].

    Raises:
        ValueError: a group of one sequence has no spread with ddof = 1.
    """
    groups = int(group_B.max()) + 1
    valid_B = ~rewards_B.isnan()
    if std == "group" and ddof == 1 and (group_B.bincount(minlength=groups) == 1).any():
        raise ValueError("a group of one completion has no spread with ddof=1; use a larger group or ddof=0")
    filled_B = rewards_B.where(valid_B, torch.zeros_like(rewards_B))

    def per_group(values_B: Tensor) -> Tensor:
        return values_B.new_zeros(groups).index_add(0, group_B, values_B)

    count_P = per_group(valid_B.to(rewards_B.dtype))
    mean_P = per_group(filled_B) / count_P.clamp(min=1)
    centred_B = (filled_B - mean_P[group_B]) * valid_B
    flat_B = zero_spread(rewards_B, group_B)[group_B]

    if std == "group":
        variance_P = per_group(centred_B.square()) / (count_P - ddof).clamp(min=1)
        spread_B = variance_P.sqrt()[group_B]
    elif std == "batch":
        # The same as torch.std, which warns where too few rewards leave every group flat.
        mean = filled_B.sum() / count_P.sum().clamp(min=1)
        variance = ((filled_B - mean) * valid_B).square().sum() / (count_P.sum() - ddof).clamp(min=1)
        spread_B = variance.sqrt().expand_as(rewards_B)
    else:
        spread_B = torch.ones_like(rewards_B)
        eps = 0.0
    # A flat group may have a spread of exactly 0; the division is kept away from it.
    scaled_B = centred_B / (spread_B + eps).where(~flat_B, torch.ones_like(spread_B))
    return scaled_B.where(valid_B & ~flat_B, torch.zeros_like(scaled_B))


def zero_spread(rewards_B: Tensor, group_B: Tensor) -> Tensor:
    """Which groups have rewards that are all equal within rounding, [P]. Such a group teaches nothing."""
    groups = int(group_B.max()) + 1
    high_B, low_B = (rewards_B.nan_to_num(nan=x, posinf=x, neginf=x) for x in (-torch.inf, torch.inf))
    high_P = rewards_B.new_full((groups,), -torch.inf).scatter_reduce(0, group_B, high_B, "amax")
    low_P = rewards_B.new_full((groups,), torch.inf).scatter_reduce(0, group_B, low_B, "amin")
    return high_P - low_P <= ZERO_SPREAD * high_P.abs().maximum(low_P.abs()).clamp(min=1.0)
