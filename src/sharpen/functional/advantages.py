"""Advantages from rewards: pure functions of tensors.

Rewards that differ only by rounding errors count as equal and give advantage 0; dividing by their standard deviation
would turn the errors into ±1. ``rounding_E`` bounds the rounding error of each reward, in units of the reward; without
it, the reward counts as rounded once, see `sharpen.functional.rounding`.
"""

from typing import Literal

import torch
from torch import Tensor

from sharpen.functional.returns import next_marked, sum_from
from sharpen.functional.rounding import rounding

Spread = Literal["group", "batch", "none"]


def group_advantages(
    rewards_E: Tensor,
    group_E: Tensor,
    *,
    std: Spread = "group",
    ddof: int = 1,
    eps: float = 0.0,
    rounding_E: Tensor | None = None,
) -> Tensor:
    r"""Rewards relative to their group, GRPO's outcome supervision (DeepSeekMath, arXiv 2402.03300, section 4.1.2).

    .. math:: Â_i = (r_i - \mathrm{mean}\,r) / (\mathrm{std}\,r + ε)

    The paper leaves ddof open; 1 divides by G − 1, 0 by G. A group of equal rewards has advantage 0.

    Args:
        rewards_E: one reward per trajectory; NaN is ignored and gets advantage 0.
        group_E: the group of each trajectory, integers from 0.
        std: standard deviation of the group, of all rewards of the batch, or no division.
        ddof: degrees of freedom subtracted from the count in the standard deviation, 0 or 1.
        eps: added to the standard deviation.
        rounding_E: bound on the rounding error of each reward.

    Returns:
        One advantage per trajectory, [E].

    Raises:
        ValueError: a group of one trajectory has no standard deviation with ddof = 1.
    """
    if std == "group" and ddof == 1 and (group_E.bincount() == 1).any():
        raise ValueError("a group of one completion has no spread with ddof=1; use a larger group or ddof=0")
    return standardised(rewards_E, group_E, std=std, ddof=ddof, eps=eps, rounding_E=rounding_E)


def standardised(
    values_E: Tensor, group_E: Tensor, *, std: Spread, ddof: int, eps: float, rounding_E: Tensor | None = None
) -> Tensor:
    """``group_advantages`` of any values; a value that is alone in its group gets 0 for either ddof."""
    groups = int(group_E.max()) + 1
    valid_E = ~values_E.isnan()
    filled_E = values_E.where(valid_E, torch.zeros_like(values_E))
    count_P = _per_group(valid_E.to(values_E.dtype), group_E, groups)
    mean_P = _per_group(filled_E, group_E, groups) / count_P.clamp(min=1)
    centred_E = (filled_E - mean_P[group_E]) * valid_E
    equal_E = zero_spread(values_E, group_E, rounding_E)[group_E]

    if std == "group":
        variance_P = _per_group(centred_E.square(), group_E, groups) / (count_P - ddof).clamp(min=1)
        spread_E = variance_P.sqrt()[group_E]
    elif std == "batch":
        # The same as torch.std, which warns if there are too few rewards.
        mean = filled_E.sum() / count_P.sum().clamp(min=1)
        variance = ((filled_E - mean) * valid_E).square().sum() / (count_P.sum() - ddof).clamp(min=1)
        spread_E = variance.sqrt().expand_as(values_E)
    else:
        spread_E = torch.ones_like(values_E)
        eps = 0.0
    # Avoids dividing by the standard deviation of a group of equal rewards, which may be exactly 0.
    scaled_E = centred_E / (spread_E + eps).where(~equal_E, torch.ones_like(spread_E))
    return scaled_E.where(valid_E & ~equal_E, torch.zeros_like(scaled_E))


def zero_spread(rewards_E: Tensor, group_E: Tensor, rounding_E: Tensor | None = None) -> Tensor:
    """Which groups have rewards that are all equal up to rounding, [P]. Such a group has no advantage.

    Rewards are equal up to rounding if the highest exceeds the lowest by no more than the largest rounding error of the
    group.
    """
    groups = int(group_E.max()) + 1
    high_E, low_E = (rewards_E.nan_to_num(nan=x, posinf=x, neginf=x) for x in (-torch.inf, torch.inf))
    high_P = rewards_E.new_full((groups,), -torch.inf).scatter_reduce(0, group_E, high_E, "amax")
    low_P = rewards_E.new_full((groups,), torch.inf).scatter_reduce(0, group_E, low_E, "amin")
    error_E = rounding(rewards_E) if rounding_E is None else rounding_E.to(rewards_E.dtype)
    error_P = rewards_E.new_zeros(groups).scatter_reduce(0, group_E, error_E.nan_to_num(nan=0.0), "amax")
    return high_P - low_P <= error_P


def leave_one_out(rewards_E: Tensor, group_E: Tensor, *, rounding_E: Tensor | None = None) -> Tensor:
    r"""RLOO: each reward minus the mean of the others of its group (Ahmadian et al. 2024, arXiv 2402.14740).

    .. math:: Â_i = r_i - \frac1{G - 1} \sum_{j \ne i} r_j = \frac{G}{G - 1} (r_i - \mathrm{mean}\,r)

    NaN is ignored and gets 0, as does a reward whose group has no other valid reward, and every reward of a group of
    equal rewards.

    Raises:
        ValueError: a group of one trajectory has no others.
    """
    if (group_E.bincount() == 1).any():
        raise ValueError("a group of one completion has no others to average over; use a larger group")
    count_E = _per_group((~rewards_E.isnan()).to(rewards_E.dtype), group_E, int(group_E.max()) + 1)[group_E]
    centred_E = standardised(rewards_E, group_E, std="none", ddof=0, eps=0.0, rounding_E=rounding_E)
    return centred_E * count_E / (count_E - 1).clamp(min=1)


def process_advantages(
    step_rewards_ET: Tensor,
    mask_ET: Tensor,
    group_E: Tensor,
    *,
    mode: Literal["to_go", "own"] = "to_go",
    std: Literal["group", "none"] = "group",
    ddof: int = 1,
    eps: float = 0.0,
) -> Tensor:
    r"""GRPO's process supervision (DeepSeekMath, arXiv 2402.03300, section 4.1.3), [E, T].

    .. math:: Â_{i,t} = \sum_{j:\, \mathrm{index}(j) \ge t} \tilde r_{i,j}, \quad
              \tilde r_{i,j} = (r_{i,j} - \mathrm{mean}\,R) / (\mathrm{std}\,R + ε)

    R pools the rewards of all steps of all completions of the group; index(j) is the last token of step j. Tokens
    after the last step get 0, so the last step should end at the end-of-sequence token.

    Args:
        step_rewards_ET: the reward of each step at its last token, NaN elsewhere. Steps outside the mask count too.
        mask_ET: the tokens that are trained on; all others get 0.
        group_E: the group of each trajectory, integers from 0.
        mode: "to_go" as above; "own" gives each token the z-score of its own step alone.
        std: standard deviation of the pool, or no division. A pool of equal rewards, such as of a single step, gives 0.
        ddof: degrees of freedom subtracted from the count in the standard deviation, 0 or 1.
        eps: added to the standard deviation.
    """
    ends_ET = ~step_rewards_ET.isnan()
    scores_ET = torch.zeros_like(step_rewards_ET)
    if ends_ET.any():
        group_N = group_E[:, None].expand_as(ends_ET)[ends_ET]
        scores_N = standardised(step_rewards_ET[ends_ET], group_N, std=std, ddof=ddof, eps=eps)
        scores_ET = scores_ET.masked_scatter(ends_ET, scores_N)
    if mode == "to_go":
        advantages_ET = sum_from(scores_ET)
    else:
        past_the_end_E1 = torch.zeros_like(scores_ET[:, :1])
        advantages_ET = torch.cat([scores_ET, past_the_end_E1], dim=1).gather(1, next_marked(ends_ET)[:, :-1])
    return advantages_ET.where(mask_ET, torch.zeros_like(advantages_ET))


def decoupled_advantages(parts_EK: Tensor, group_E: Tensor, weights_K: Tensor, *, ddof: int = 1) -> Tensor:
    r"""GDPO: each reward is normalised on its own before they are summed (arXiv 2601.05242).

    .. math:: S_i = \sum_k w_k\, (r_{i,k} - \mathrm{mean}\,r_k) / \mathrm{std}\,r_k, \quad Â_i = S_i / \mathrm{std}\,S

    mean r_k and std r_k are over the group, std S over all trajectories of the batch. S has mean 0 in every group and
    so in the batch; it is not subtracted again, so that groups of equal rewards have an advantage of exactly 0.

    Args:
        parts_EK: K rewards per trajectory; NaN is ignored and adds nothing. A trajectory with only NaN gets 0 and does
            not count in std S.
        group_E: the group of each trajectory, integers from 0.
        weights_K: weight of each reward after its normalisation. If the weighted scores of a group
            cancel, it counts as a group of equal rewards.
        ddof: degrees of freedom subtracted from the count in both standard deviations, 0 or 1.

    Raises:
        ValueError: a group of one trajectory has no standard deviation with ddof = 1.
    """
    parts = [group_advantages(part_E, group_E, ddof=ddof) for part_E in parts_EK.unbind(1)]
    weighted_EK = torch.stack(parts, dim=1) * weights_K
    summed_E = weighted_EK.sum(dim=1)
    equal_P = zero_spread(summed_E, group_E, rounding(weighted_EK).sum(dim=1))
    summed_E = summed_E.masked_fill(equal_P[group_E], 0.0)
    count = (~parts_EK.isnan()).any(dim=1).sum()
    spread = (summed_E.square().sum() / (count - ddof).clamp(min=1)).sqrt()
    return summed_E / spread.where(spread > 0, torch.ones_like(spread))


def whiten(values_ET: Tensor, mask_ET: Tensor, *, centre: bool = True, input_rounding: Tensor | float = 0.0) -> Tensor:
    r"""Mean 0 and variance 1 over all tokens of the batch, as for REINFORCE++ (arXiv 2501.03262) and PPO.

    .. math:: (x - \mathrm{mean}\,x) / \mathrm{std}\,x \quad [+ \mathrm{mean}\,x]

    Without ``centre`` the mean is added back, as for rewards (Ziegler et al. 2019, arXiv 1909.08593). std divides by
    n − 1. If all values are equal up to rounding, or there is only one, the result is 0, or the values themselves
    without ``centre``. ``input_rounding`` bounds the error that rounding of their inputs causes in the values. Tokens
    outside ``mask_ET`` get 0.
    """
    values_N = values_ET[mask_ET]
    if not len(values_N):
        return torch.zeros_like(values_ET)
    mean = values_N.mean()
    equal = values_N.max() - values_N.min() <= rounding(values_N).max().clamp(min=input_rounding)
    centred_N = torch.zeros_like(values_N) if equal else values_N - mean
    spread = (centred_N.square().sum() / max(len(values_N) - 1, 1)).sqrt()
    whitened_N = centred_N / spread.where(spread > 0, torch.ones_like(spread))
    return torch.zeros_like(values_ET).masked_scatter(mask_ET, whitened_N if centre else whitened_N + mean)


def accepted(
    rewards_E: Tensor,
    group_E: Tensor,
    tokens_ET: Tensor,
    mask_ET: Tensor,
    *,
    threshold: float,
    at_most: int | None,
    unique: bool = True,
    prefix_ET: Tensor | None = None,
) -> Tensor:
    """Which completions rejection sampling keeps (RFT, Yuan et al. 2023, arXiv 2308.01825), [E], bool.

    Those with a reward of at least ``threshold``, in order, at most ``at_most`` per group. With ``unique``, only the
    first of identical completions of a group, compared up to the last token of ``mask_ET``; ``prefix_ET`` numbers the
    prefix that each token follows, where completions have several. A completion without a reward (NaN) or without a
    trained token is not kept.
    """
    keep_E = (rewards_E >= threshold) & mask_ET.any(dim=1)
    written_2ET = torch.stack([tokens_ET, torch.zeros_like(tokens_ET) if prefix_ET is None else prefix_ET])
    seen: dict[int, list[list[list[int]]]] = {}
    for e in keep_E.nonzero().flatten().tolist():
        kept = seen.setdefault(int(group_E[e]), [])
        written = written_2ET[:, e, : int(mask_ET[e].nonzero().max()) + 1].tolist()
        if (unique and written in kept) or len(kept) == at_most:
            keep_E[e] = False
        else:
            kept.append(written)
    return keep_E


def soft_overlong(length_E: Tensor, *, limit: int, cache: int) -> Tensor:
    r"""DAPO's soft overlong punishment, to be added to the reward (arXiv 2503.14476, eq. 13), [E].

    .. math:: 0 \text{ up to } L - C, \quad ((L - C) - |o|)/C \text{ up to } L, \quad -1 \text{ beyond}

    Args:
        length_E: |o|, in tokens.
        limit: L, in tokens. Paper: 20480.
        cache: C, the tokens before the limit over which the punishment grows. Paper: 4096.

    Raises:
        ValueError: ``cache`` is not between 1 and ``limit``.
    """
    if not 1 <= cache <= limit:
        raise ValueError(f"cache must be between 1 and the limit of {limit} tokens, not {cache}")
    return ((limit - cache - length_E) / cache).clamp(-1.0, 0.0)


def _per_group(values_E: Tensor, group_E: Tensor, groups: int) -> Tensor:
    return values_E.new_zeros(groups).index_add(0, group_E, values_E)
