"""Advantages from rewards: pure functions of tensors.

Rewards that differ only by rounding errors count as equal and give advantage 0; dividing by their standard deviation
would turn the errors into ±1. ``rounding_B`` bounds the rounding error of each reward, in units of the reward; without
it, the reward counts as rounded once, see `sharpen.functional.rounding`.
"""

from typing import Literal

import torch
from torch import Tensor

from sharpen.functional.returns import next_marked, sum_from
from sharpen.functional.rounding import rounding

Spread = Literal["group", "batch", "none"]


def group_advantages(
    rewards_B: Tensor,
    group_B: Tensor,
    *,
    std: Spread = "group",
    ddof: int = 1,
    eps: float = 0.0,
    rounding_B: Tensor | None = None,
) -> Tensor:
    r"""Rewards relative to their group, GRPO's outcome supervision (DeepSeekMath, arXiv 2402.03300, section 4.1.2).

    .. math:: Â_i = (r_i - \mathrm{mean}\,r) / (\mathrm{std}\,r + ε)

    The paper leaves ddof open; 1 divides by G − 1, 0 by G. A group of equal rewards has advantage 0.

    Args:
        rewards_B: one reward per sequence; NaN is ignored and gets advantage 0.
        group_B: the group of each sequence, integers from 0.
        std: standard deviation of the group, of all rewards of the batch, or no division.
        ddof: degrees of freedom subtracted from the count in the standard deviation, 0 or 1.
        eps: added to the standard deviation.
        rounding_B: bound on the rounding error of each reward.

    Returns:
        One advantage per sequence, [B].

    Raises:
        ValueError: a group of one sequence has no standard deviation with ddof = 1.
    """
    if std == "group" and ddof == 1 and (group_B.bincount() == 1).any():
        raise ValueError("a group of one completion has no spread with ddof=1; use a larger group or ddof=0")
    return standardised(rewards_B, group_B, std=std, ddof=ddof, eps=eps, rounding_B=rounding_B)


def standardised(
    values_B: Tensor, group_B: Tensor, *, std: Spread, ddof: int, eps: float, rounding_B: Tensor | None = None
) -> Tensor:
    """``group_advantages`` of any values; a value that is alone in its group gets 0 for either ddof."""
    groups = int(group_B.max()) + 1
    valid_B = ~values_B.isnan()
    filled_B = values_B.where(valid_B, torch.zeros_like(values_B))
    count_P = _per_group(valid_B.to(values_B.dtype), group_B, groups)
    mean_P = _per_group(filled_B, group_B, groups) / count_P.clamp(min=1)
    centred_B = (filled_B - mean_P[group_B]) * valid_B
    equal_B = zero_spread(values_B, group_B, rounding_B)[group_B]

    if std == "group":
        variance_P = _per_group(centred_B.square(), group_B, groups) / (count_P - ddof).clamp(min=1)
        spread_B = variance_P.sqrt()[group_B]
    elif std == "batch":
        # The same as torch.std, which warns if there are too few rewards.
        mean = filled_B.sum() / count_P.sum().clamp(min=1)
        variance = ((filled_B - mean) * valid_B).square().sum() / (count_P.sum() - ddof).clamp(min=1)
        spread_B = variance.sqrt().expand_as(values_B)
    else:
        spread_B = torch.ones_like(values_B)
        eps = 0.0
    # Avoids dividing by the standard deviation of a group of equal rewards, which may be exactly 0.
    scaled_B = centred_B / (spread_B + eps).where(~equal_B, torch.ones_like(spread_B))
    return scaled_B.where(valid_B & ~equal_B, torch.zeros_like(scaled_B))


def zero_spread(rewards_B: Tensor, group_B: Tensor, rounding_B: Tensor | None = None) -> Tensor:
    """Which groups have rewards that are all equal up to rounding, [P]. Such a group has no advantage.

    Rewards are equal up to rounding if the highest exceeds the lowest by no more than the largest rounding error of the
    group.
    """
    groups = int(group_B.max()) + 1
    high_B, low_B = (rewards_B.nan_to_num(nan=x, posinf=x, neginf=x) for x in (-torch.inf, torch.inf))
    high_P = rewards_B.new_full((groups,), -torch.inf).scatter_reduce(0, group_B, high_B, "amax")
    low_P = rewards_B.new_full((groups,), torch.inf).scatter_reduce(0, group_B, low_B, "amin")
    error_B = rounding(rewards_B) if rounding_B is None else rounding_B.to(rewards_B.dtype)
    error_P = rewards_B.new_zeros(groups).scatter_reduce(0, group_B, error_B.nan_to_num(nan=0.0), "amax")
    return high_P - low_P <= error_P


def leave_one_out(rewards_B: Tensor, group_B: Tensor, *, rounding_B: Tensor | None = None) -> Tensor:
    r"""RLOO: each reward minus the mean of the others of its group (Ahmadian et al. 2024, arXiv 2402.14740).

    .. math:: Â_i = r_i - \frac1{G - 1} \sum_{j \ne i} r_j = \frac{G}{G - 1} (r_i - \mathrm{mean}\,r)

    NaN is ignored and gets 0, as does a reward whose group has no other valid reward, and every reward of a group of
    equal rewards.

    Raises:
        ValueError: a group of one sequence has no others.
    """
    if (group_B.bincount() == 1).any():
        raise ValueError("a group of one completion has no others to average over; use a larger group")
    count_B = _per_group((~rewards_B.isnan()).to(rewards_B.dtype), group_B, int(group_B.max()) + 1)[group_B]
    centred_B = standardised(rewards_B, group_B, std="none", ddof=0, eps=0.0, rounding_B=rounding_B)
    return centred_B * count_B / (count_B - 1).clamp(min=1)


def process_advantages(
    step_rewards_BT: Tensor,
    mask_BT: Tensor,
    group_B: Tensor,
    *,
    mode: Literal["to_go", "own"] = "to_go",
    std: Literal["group", "none"] = "group",
    ddof: int = 1,
    eps: float = 0.0,
) -> Tensor:
    r"""GRPO's process supervision (DeepSeekMath, arXiv 2402.03300, section 4.1.3), [B, T].

    .. math:: Â_{i,t} = \sum_{j:\, \mathrm{index}(j) \ge t} \tilde r_{i,j}, \quad
              \tilde r_{i,j} = (r_{i,j} - \mathrm{mean}\,R) / (\mathrm{std}\,R + ε)

    R pools the rewards of all steps of all completions of the group; index(j) is the last token of step j. Tokens
    after the last step get 0, so the last step should end at the end-of-sequence token.

    Args:
        step_rewards_BT: the reward of each step at its last token, NaN elsewhere. Steps outside the mask count too.
        mask_BT: the tokens that are trained on; all others get 0.
        group_B: the group of each sequence, integers from 0.
        mode: "to_go" as above; "own" gives each token the z-score of its own step alone.
        std: standard deviation of the pool, or no division. A pool of equal rewards, such as of a single step, gives 0.
        ddof: degrees of freedom subtracted from the count in the standard deviation, 0 or 1.
        eps: added to the standard deviation.
    """
    ends_BT = ~step_rewards_BT.isnan()
    scores_BT = torch.zeros_like(step_rewards_BT)
    if ends_BT.any():
        group_N = group_B[:, None].expand_as(ends_BT)[ends_BT]
        scores_N = standardised(step_rewards_BT[ends_BT], group_N, std=std, ddof=ddof, eps=eps)
        scores_BT = scores_BT.masked_scatter(ends_BT, scores_N)
    if mode == "to_go":
        advantages_BT = sum_from(scores_BT)
    else:
        past_the_end_B1 = torch.zeros_like(scores_BT[:, :1])
        advantages_BT = torch.cat([scores_BT, past_the_end_B1], dim=1).gather(1, next_marked(ends_BT)[:, :-1])
    return advantages_BT.where(mask_BT, torch.zeros_like(advantages_BT))


def decoupled_advantages(parts_BK: Tensor, group_B: Tensor, weights_K: Tensor, *, ddof: int = 1) -> Tensor:
    r"""GDPO: each reward is normalised on its own before they are summed (arXiv 2601.05242).

    .. math:: S_i = \sum_k w_k\, (r_{i,k} - \mathrm{mean}\,r_k) / \mathrm{std}\,r_k, \quad Â_i = S_i / \mathrm{std}\,S

    mean r_k and std r_k are over the group, std S over all sequences of the batch. S has mean 0 in every group and so
    in the batch; it is not subtracted again, so that groups of equal rewards have an advantage of exactly 0.

    Args:
        parts_BK: K rewards per sequence; NaN is ignored and adds nothing. A sequence with only NaN gets 0 and does not
            count in std S.
        group_B: the group of each sequence, integers from 0.
        weights_K: weight of each reward after its normalisation. If the weighted scores of a group
            cancel, it counts as a group of equal rewards.
        ddof: degrees of freedom subtracted from the count in both standard deviations, 0 or 1.

    Raises:
        ValueError: a group of one sequence has no standard deviation with ddof = 1.
    """
    parts = [group_advantages(part_B, group_B, ddof=ddof) for part_B in parts_BK.unbind(1)]
    weighted_BK = torch.stack(parts, dim=1) * weights_K
    summed_B = weighted_BK.sum(dim=1)
    equal_P = zero_spread(summed_B, group_B, rounding(weighted_BK).sum(dim=1))
    summed_B = summed_B.masked_fill(equal_P[group_B], 0.0)
    count = (~parts_BK.isnan()).any(dim=1).sum()
    spread = (summed_B.square().sum() / (count - ddof).clamp(min=1)).sqrt()
    return summed_B / spread.where(spread > 0, torch.ones_like(spread))


def whiten(values_BT: Tensor, mask_BT: Tensor, *, centre: bool = True, input_rounding: Tensor | float = 0.0) -> Tensor:
    r"""Mean 0 and variance 1 over all tokens of the batch, as for REINFORCE++ (arXiv 2501.03262) and PPO.

    .. math:: (x - \mathrm{mean}\,x) / \mathrm{std}\,x \quad [+ \mathrm{mean}\,x]

    Without ``centre`` the mean is added back, as for rewards (Ziegler et al. 2019, arXiv 1909.08593). std divides by
    n − 1. If all values are equal up to rounding, or there is only one, the result is 0, or the values themselves
    without ``centre``. ``input_rounding`` bounds the error that rounding of their inputs causes in the values. Tokens
    outside ``mask_BT`` get 0.
    """
    values_N = values_BT[mask_BT]
    if not len(values_N):
        return torch.zeros_like(values_BT)
    mean = values_N.mean()
    equal = values_N.max() - values_N.min() <= rounding(values_N).max().clamp(min=input_rounding)
    centred_N = torch.zeros_like(values_N) if equal else values_N - mean
    spread = (centred_N.square().sum() / max(len(values_N) - 1, 1)).sqrt()
    whitened_N = centred_N / spread.where(spread > 0, torch.ones_like(spread))
    return torch.zeros_like(values_BT).masked_scatter(mask_BT, whitened_N if centre else whitened_N + mean)


def accepted(
    rewards_B: Tensor,
    group_B: Tensor,
    tokens_BT: Tensor,
    mask_BT: Tensor,
    *,
    threshold: float,
    at_most: int | None,
    unique: bool = True,
) -> Tensor:
    """Which completions rejection sampling keeps (RFT, Yuan et al. 2023, arXiv 2308.01825), [B], bool.

    Those with a reward of at least ``threshold``, in order, at most ``at_most`` per group. With ``unique``, only the
    first of identical completions of a group, compared up to the last token of ``mask_BT``. A completion without a
    reward (NaN) or without a trained token is not kept.
    """
    keep_B = (rewards_B >= threshold) & mask_BT.any(dim=1)
    seen: dict[int, list[tuple[int, ...]]] = {}
    for b in keep_B.nonzero().flatten().tolist():
        kept = seen.setdefault(int(group_B[b]), [])
        tokens = tuple(tokens_BT[b, : int(mask_BT[b].nonzero().max()) + 1].tolist())
        if (unique and tokens in kept) or len(kept) == at_most:
            keep_B[b] = False
        else:
            kept.append(tokens)
    return keep_B


def soft_overlong(length_B: Tensor, *, limit: int, cache: int) -> Tensor:
    r"""DAPO's soft overlong punishment, to be added to the reward (arXiv 2503.14476, eq. 13), [B].

    .. math:: 0 \text{ up to } L - C, \quad ((L - C) - |o|)/C \text{ up to } L, \quad -1 \text{ beyond}

    Args:
        length_B: |o|, in tokens.
        limit: L, in tokens. Paper: 20480.
        cache: C, the tokens before the limit over which the punishment grows. Paper: 4096.

    Raises:
        ValueError: ``cache`` is not between 1 and ``limit``.
    """
    if not 1 <= cache <= limit:
        raise ValueError(f"cache must be between 1 and the limit of {limit} tokens, not {cache}")
    return ((limit - cache - length_B) / cache).clamp(-1.0, 0.0)


def _per_group(values_B: Tensor, group_B: Tensor, groups: int) -> Tensor:
    return values_B.new_zeros(groups).index_add(0, group_B, values_B)
