"""Attention of a decoding step on a GPU as one Triton kernel for each layer.

A program has one row and one key head. It goes through the row's prompt and then the row's own tokens, exactly as
many as there are, and never writes a score to memory. Rows of a group read the same prompt, which the GPU's cache then
holds: from memory it comes once.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_KEYS = 64
"""Keys that are looked at together."""
_LEAST_QUERIES = 16
"""Of a product on matrix units."""


def attend_one_token(
    q_BHD: Tensor,
    k_BhD: Tensor,
    v_BhD: Tensor,
    keys_BhLD: Tensor,
    values_BhLD: Tensor,
    slot_B: Tensor,
    prompt_keys_PhLD: Tensor,
    prompt_values_PhLD: Tensor,
    prompt_B: Tensor,
    prompt_length_B: Tensor,
    scale: float,
) -> Tensor:
    """softmax(scale · q kᵀ) v of each row over its prompt and its own tokens, the new one included: [B, H · D].

    Stores the new key and value at ``slot_B``, before which the row's own tokens stand. Scores, softmax and sums are
    in float32. ``prompt_B`` is the place of each row's prompt among P, of whose L keys the first
    ``prompt_length_B`` count. Heads of q, k and v lie behind one another, their rows at any distance.
    """
    assert all(x.is_contiguous() for x in (keys_BhLD, values_BhLD, prompt_keys_PhLD, prompt_values_PhLD))
    rows, heads, size = q_BHD.shape
    key_heads = k_BhD.shape[1]
    mixed = torch.empty(rows, heads * size, dtype=values_BhLD.dtype, device=q_BHD.device)
    share, width = heads // key_heads, triton.next_power_of_2(size)
    _attend[(rows, key_heads)](
        q_BHD,
        k_BhD,
        v_BhD,
        q_BHD.stride(0),
        k_BhD.stride(0),
        v_BhD.stride(0),
        keys_BhLD,
        values_BhLD,
        keys_BhLD.shape[2],
        slot_B,
        prompt_keys_PhLD,
        prompt_values_PhLD,
        prompt_keys_PhLD.shape[2],
        prompt_B,
        prompt_length_B,
        mixed,
        scale * 1.4426950408889634,
        KEY_HEADS=key_heads,
        SHARE=share,
        SIZE=size,
        QUERIES=max(_LEAST_QUERIES, triton.next_power_of_2(share)),
        WIDTH=width,
        KEYS=_KEYS,
        # With more, programs wait for room; measured with many rows and with few.
        num_warps=2 if width <= 64 else 4,
        num_stages=2,
    )
    return mixed


@triton.jit  # type: ignore[untyped-decorator]
def _attend(  # type: ignore[no-untyped-def]
    q_from,
    k_from,
    v_from,
    q_step,
    k_step,
    v_step,
    keys,
    values,
    room,
    slots,
    prompt_keys,
    prompt_values,
    prompt_room,
    prompts,
    prompt_lengths,
    mixed_to,
    scale_log2,
    KEY_HEADS: tl.constexpr,
    SHARE: tl.constexpr,
    SIZE: tl.constexpr,
    QUERIES: tl.constexpr,
    WIDTH: tl.constexpr,
    KEYS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    query = tl.arange(0, QUERIES)
    column = tl.arange(0, WIDTH)
    of_head = column < SIZE
    cells = (query < SHARE)[:, None] & of_head[None, :]
    place = (head * SHARE + query)[:, None] * SIZE + column[None, :]
    kind = values.dtype.element_ty
    q = tl.load(q_from + row * q_step + place, mask=cells, other=0.0).to(kind)
    k = tl.load(k_from + row * k_step + head * SIZE + column, mask=of_head, other=0.0).to(kind)
    v = tl.load(v_from + row * v_step + head * SIZE + column, mask=of_head, other=0.0).to(kind)
    slot = tl.load(slots + row)
    own = (row * KEY_HEADS + head) * room * SIZE
    tl.store(keys + own + slot * SIZE + column, k, mask=of_head)
    tl.store(values + own + slot * SIZE + column, v, mask=of_head)
    # The new token is the first that is seen: it begins the sums.
    highest = tl.sum(q.to(tl.float32) * k.to(tl.float32)[None, :], axis=1) * scale_log2
    total = tl.full([QUERIES], 1.0, tl.float32)
    mixed = tl.zeros([QUERIES, WIDTH], tl.float32) + v.to(tl.float32)[None, :]
    shown = (tl.load(prompts + row) * KEY_HEADS + head) * prompt_room * SIZE
    length = tl.load(prompt_lengths + row)
    highest, total, mixed = _see(
        q, prompt_keys + shown, prompt_values + shown, length, highest, total, mixed, scale_log2, SIZE, WIDTH, KEYS
    )
    highest, total, mixed = _see(
        q, keys + own, values + own, slot, highest, total, mixed, scale_log2, SIZE, WIDTH, KEYS
    )
    result = mixed / total[:, None]
    tl.store(mixed_to + row * KEY_HEADS * SHARE * SIZE + place, result.to(kind), mask=cells)


@triton.jit  # type: ignore[untyped-decorator]
def _see(  # type: ignore[no-untyped-def]
    q,
    keys,
    values,
    count,
    highest,
    total,
    mixed,
    scale_log2,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    KEYS: tl.constexpr,
):
    """Go on with ``count`` keys: the highest score, the sum of exponentials under it, and what is mixed by them."""
    column = tl.arange(0, WIDTH)
    for start in range(0, count, KEYS):
        number = start + tl.arange(0, KEYS)
        real = number < count
        cells = real[:, None] & (column < SIZE)[None, :]
        place = number.to(tl.int64)[:, None] * SIZE + column[None, :]
        k = tl.load(keys + place, mask=cells, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale_log2
        scores = tl.where(real[None, :], scores, float("-inf"))
        higher = tl.maximum(highest, tl.max(scores, axis=1))
        faded = tl.exp2(highest - higher)
        share = tl.exp2(scores - higher[:, None])
        v = tl.load(values + place, mask=cells, other=0.0)
        mixed = mixed * faded[:, None] + tl.dot(share.to(v.dtype), v, input_precision="ieee")
        total = total * faded + tl.sum(share, axis=1)
        highest = higher
    return highest, total, mixed
