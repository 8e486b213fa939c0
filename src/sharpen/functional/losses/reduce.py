"""The weight of every term in the loss of one optimizer step: loss = Σ weight × term.

Weights are computed once over the whole step, before it is split into micro-batches, so that no split can change them.
``mask_ET`` marks the trained tokens; ``group_E`` gives each trajectory's group, an integer from 0. A trajectory without
a trained token does not count in its group's G, nor a group without such a trajectory in P.
"""

import torch
from torch import Tensor


def _count_per_group(values_E: Tensor, group_E: Tensor) -> Tensor:
    """Sum of ``values_E`` over each group, [P]."""
    return values_E.new_zeros(int(group_E.max()) + 1).index_add(0, group_E, values_E)


def groups_mean(present_P: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """1/P for each of the P groups that are present and 0 for the others, [P]: the mean over pairs or rankings."""
    present_P = present_P.to(dtype)
    return present_P / present_P.sum().clamp(min=1)


def sequences(present_E: Tensor, group_E: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """1/P · 1/G for each trajectory that is present, else 0, [E]: the mean over each group, then over groups."""
    size_P = _count_per_group(present_E.to(dtype), group_E)
    weight_P = groups_mean(size_P > 0, dtype=dtype) / size_P.clamp(min=1)
    return weight_P[group_E] * present_E


def per_sequence(mask_ET: Tensor, group_E: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """1/P · 1/G · 1/|o|: GRPO's mean over tokens, then completions, then prompts (arXiv 2402.03300, eq. 3)."""
    mask_ET = mask_ET.to(dtype)
    length_E = mask_ET.sum(dim=1)
    return mask_ET * (sequences(length_E > 0, group_E, dtype=dtype) / length_E.clamp(min=1))[:, None]


def tokens_of_group(mask_ET: Tensor, group_E: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """1/P · 1/Σ_i|o_i|: DAPO's mean over the tokens of a group (arXiv 2503.14476, eq. 12)."""
    mask_ET = mask_ET.to(dtype)
    tokens_P = _count_per_group(mask_ET.sum(dim=1), group_E)
    weight_P = groups_mean(tokens_P > 0, dtype=dtype) / tokens_P.clamp(min=1)
    return mask_ET * weight_P[group_E][:, None]


def tokens_of_batch(mask_ET: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """1 / (all tokens of the step): every token has the same weight, as in supervised fine-tuning."""
    mask_ET = mask_ET.to(dtype)
    return mask_ET / mask_ET.sum().clamp(min=1)


def constant_length(mask_ET: Tensor, group_E: Tensor, length: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """1/P · 1/G · 1/L for a constant L: Dr. GRPO's sum over tokens, free of length bias (arXiv 2503.20783)."""
    mask_ET = mask_ET.to(dtype)
    return mask_ET * (sequences(mask_ET.any(dim=1), group_E, dtype=dtype) / length)[:, None]
