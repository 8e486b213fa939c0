"""Attention over a row of many sequences, query by query and key by key."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def sees(segments: Sequence[tuple[int, int, int, int]], query: int, key: int) -> bool:
    """``segments`` are (start, end, start of the prompt, end of the prompt)."""
    for start, end, prompt, prompt_end in segments:
        if start <= query < end:
            return start <= key <= query or prompt <= key < prompt_end
    raise ValueError(f"{query} is in no segment")


def attention(
    query_HLD: Tensor, key_hLD: Tensor, value_hLD: Tensor, segments: Sequence[tuple[int, int, int, int]], scale: float
) -> Tensor:
    """[H, L, D]; autograd gives its gradients."""
    H, L, _ = query_HLD.shape
    shared_by = H // key_hLD.shape[0]
    heads = []
    for head in range(H):
        key_LD, value_LD = key_hLD[head // shared_by], value_hLD[head // shared_by]
        rows = []
        for i in range(L):
            seen = [j for j in range(L) if sees(segments, i, j)]
            weights = torch.stack([(query_HLD[head, i] * key_LD[j]).sum() * scale for j in seen]).exp()
            rows.append(sum(w * value_LD[j] for w, j in zip(weights / weights.sum(), seen, strict=True)))
        heads.append(torch.stack(rows))
    return torch.stack(heads)
