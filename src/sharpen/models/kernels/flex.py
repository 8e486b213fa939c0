"""Attention over segments on a GPU, by PyTorch's FlexAttention."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from sharpen.models.packing.segments import Segments


def flex_over_segments(
    query_1HLD: Tensor, key_1hLD: Tensor, value_1hLD: Tensor, mask: BlockMask, scale: float
) -> Tensor:
    """softmax(scale · q kᵀ) v over the tokens each may attend to: [1, H, L, D]. H is a multiple of h, the KV heads.

    Fully masked blocks of 128 × 128 pairs are skipped. On a CPU it is slow and only used in tests.
    """
    # A compiled layer compiles it along with the rest.
    alone = query_1HLD.device.type == "cuda" and not torch.compiler.is_compiling()
    attention: Any = _compiled() if alone else flex_attention
    query_1HLD, key_1hLD = (x.to(value_1hLD.dtype) for x in (query_1HLD, key_1hLD))
    output_1HLD: Tensor = attention(query_1HLD, key_1hLD, value_1hLD, block_mask=mask, scale=scale, enable_gqa=True)
    return output_1HLD


def mask_of(segments: Segments) -> BlockMask:
    length = segments.length
    return segments.derive(
        "block mask",
        lambda: create_block_mask(visible(segments), None, None, length, length, device=str(segments.device)),
    )


def visible(segments: Segments) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """FlexAttention's mask function: a query attends to earlier tokens of its segment and to its prompt."""
    own_L, prompt_L = segments.numbers()

    def sees(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (key <= query) & ((own_L[key] == own_L[query]) | (own_L[key] == prompt_L[query]))

    return sees


@functools.cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=True)
