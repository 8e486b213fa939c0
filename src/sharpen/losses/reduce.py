"""The weight of every token in the loss of one optimizer step: loss = Σ weight × term.

Weights are made once from the whole step, before it is cut into micro-batches, so that no cut can change them.
``mask_BT`` marks the tokens that count and ``group_B`` names each sequence's group with an integer from 0. A sequence
without a counted token is left out of its group's G, and a group without a sequence out of P.
"""

import torch
from torch import Tensor


def _count_per_group(values_B: Tensor, group_B: Tensor) -> Tensor:
    """Sum of ``values_B`` over each group, given back to every member: [B]."""
    totals_P = values_B.new_zeros(int(group_B.max()) + 1).index_add(0, group_B, values_B)
    return totals_P[group_B]


def _mean_over_groups(weights_BT: Tensor, present_B: Tensor, group_B: Tensor) -> Tensor:
    groups = len(set(group_B[present_B > 0].tolist()))
    return weights_BT / max(groups, 1)


def per_sequence(mask_BT: Tensor, group_B: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """1/P · 1/G · 1/|o|: GRPO's mean over tokens, then completions, then prompts (arXiv 2402.03300, eq. 3)."""
    mask_BT = mask_BT.to(dtype)
    length_B = mask_BT.sum(dim=1)
    present_B = (length_B > 0).to(dtype)
    size_B = _count_per_group(present_B, group_B).clamp(min=1)
    return _mean_over_groups(mask_BT / (length_B.clamp(min=1) * size_B)[:, None], present_B, group_B)


def tokens_of_group(mask_BT: Tensor, group_B: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """1/P · 1/Σ_i|o_i|: DAPO's mean over the tokens of a group (arXiv 2503.14476, eq. 12)."""
    mask_BT = mask_BT.to(dtype)
    length_B = mask_BT.sum(dim=1)
    tokens_B = _count_per_group(length_B, group_B).clamp(min=1)
    return _mean_over_groups(mask_BT / tokens_B[:, None], (length_B > 0).to(dtype), group_B)


def tokens_of_batch(mask_BT: Tensor, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """1 / (all tokens of the step): every token weighs the same, as in supervised fine-tuning."""
    mask_BT = mask_BT.to(dtype)
    return mask_BT / mask_BT.sum().clamp(min=1)


def constant_length(mask_BT: Tensor, group_B: Tensor, length: int, *, dtype: torch.dtype = torch.float32) -> Tensor:
    """1/P · 1/G · 1/L for a constant L: Dr. GRPO's sum over tokens, free of length bias (arXiv 2503.20783)."""
    mask_BT = mask_BT.to(dtype)
    present_B = (mask_BT.sum(dim=1) > 0).to(dtype)
    size_B = _count_per_group(present_B, group_B).clamp(min=1)
    return _mean_over_groups(mask_BT / (length * size_B)[:, None], present_B, group_B)
