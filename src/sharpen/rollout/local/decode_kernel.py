"""Attention of a decoding step on a GPU, one Triton kernel per layer.

A program handles one row and one key head. It reads the row's prompt, then the row's own tokens, without padding, and
never writes a score to memory. Rows of a group read the same prompt, so it is loaded from memory once and then found in
the GPU's cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

_BLOCK_KEYS = 64
"""Keys per iteration."""
_MIN_QUERIES = 16
"""The fewest rows of a product on tensor cores."""


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

    Stores the new key and value at ``slot_B``; the row's earlier tokens occupy the slots before it. Scores, softmax and
    sums are in float32. ``prompt_B`` is the index of each row's prompt among P, of whose L keys the first
    ``prompt_length_B`` are valid. Within a row, the heads of q, k and v must be contiguous; the row stride is free.
    """
    assert all(x.is_contiguous() for x in (keys_BhLD, values_BhLD, prompt_keys_PhLD, prompt_values_PhLD))
    rows, heads, head_dim = q_BHD.shape
    kv_heads = k_BhD.shape[1]
    result = torch.empty(rows, heads * head_dim, dtype=values_BhLD.dtype, device=q_BHD.device)
    group, padded_dim = heads // kv_heads, triton.next_power_of_2(head_dim)
    _attend[(rows, kv_heads)](
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
        result,
        scale * 1.4426950408889634,
        KV_HEADS=kv_heads,
        GROUP=group,
        HEAD_DIM=head_dim,
        QUERIES=max(_MIN_QUERIES, triton.next_power_of_2(group)),
        PADDED_DIM=padded_dim,
        BLOCK_KEYS=_BLOCK_KEYS,
        # With more warps, fewer programs are resident at once; measured with many rows and with few.
        num_warps=2 if padded_dim <= 64 else 4,
        num_stages=2,
    )
    return result


@triton.jit  # type: ignore[untyped-decorator]
def _attend(  # type: ignore[no-untyped-def]
    q_ptr,
    k_ptr,
    v_ptr,
    q_stride,
    k_stride,
    v_stride,
    keys,
    values,
    capacity,
    slots,
    prompt_keys,
    prompt_values,
    prompt_capacity,
    prompts,
    prompt_lengths,
    result_ptr,
    scale_log2,
    KV_HEADS: tl.constexpr,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    QUERIES: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1)
    query = tl.arange(0, QUERIES)
    column = tl.arange(0, PADDED_DIM)
    in_head = column < HEAD_DIM
    mask = (query < GROUP)[:, None] & in_head[None, :]
    offset = (head * GROUP + query)[:, None] * HEAD_DIM + column[None, :]
    dtype = values.dtype.element_ty
    q = tl.load(q_ptr + row * q_stride + offset, mask=mask, other=0.0).to(dtype)
    k = tl.load(k_ptr + row * k_stride + head * HEAD_DIM + column, mask=in_head, other=0.0).to(dtype)
    v = tl.load(v_ptr + row * v_stride + head * HEAD_DIM + column, mask=in_head, other=0.0).to(dtype)
    slot = tl.load(slots + row)
    own = (row * KV_HEADS + head) * capacity * HEAD_DIM
    tl.store(keys + own + slot * HEAD_DIM + column, k, mask=in_head)
    tl.store(values + own + slot * HEAD_DIM + column, v, mask=in_head)
    # Start the running softmax with the new token, which is still in registers.
    running_max = tl.sum(q.to(tl.float32) * k.to(tl.float32)[None, :], axis=1) * scale_log2
    running_sum = tl.full([QUERIES], 1.0, tl.float32)
    accumulated = tl.zeros([QUERIES, PADDED_DIM], tl.float32) + v.to(tl.float32)[None, :]
    prompt = (tl.load(prompts + row) * KV_HEADS + head) * prompt_capacity * HEAD_DIM
    length = tl.load(prompt_lengths + row)
    running_max, running_sum, accumulated = _accumulate(
        q,
        prompt_keys + prompt,
        prompt_values + prompt,
        length,
        running_max,
        running_sum,
        accumulated,
        scale_log2,
        HEAD_DIM,
        PADDED_DIM,
        BLOCK_KEYS,
    )
    running_max, running_sum, accumulated = _accumulate(
        q,
        keys + own,
        values + own,
        slot,
        running_max,
        running_sum,
        accumulated,
        scale_log2,
        HEAD_DIM,
        PADDED_DIM,
        BLOCK_KEYS,
    )
    result = accumulated / running_sum[:, None]
    tl.store(result_ptr + row * KV_HEADS * GROUP * HEAD_DIM + offset, result.to(dtype), mask=mask)


@triton.jit  # type: ignore[untyped-decorator]
def _accumulate(  # type: ignore[no-untyped-def]
    q,
    keys,
    values,
    count,
    running_max,
    running_sum,
    accumulated,
    scale_log2,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    BLOCK_KEYS: tl.constexpr,
):
    """Continue a running softmax over ``count`` keys: the maximum score, the sum of exponentials below it, and the
    values weighted by these exponentials."""
    column = tl.arange(0, PADDED_DIM)
    for start in range(0, count, BLOCK_KEYS):
        number = start + tl.arange(0, BLOCK_KEYS)
        valid = number < count
        mask = valid[:, None] & (column < HEAD_DIM)[None, :]
        offset = number.to(tl.int64)[:, None] * HEAD_DIM + column[None, :]
        k = tl.load(keys + offset, mask=mask, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision="ieee") * scale_log2
        scores = tl.where(valid[None, :], scores, float("-inf"))
        new_max = tl.maximum(running_max, tl.max(scores, axis=1))
        rescale = tl.exp2(running_max - new_max)
        weights = tl.exp2(scores - new_max[:, None])
        v = tl.load(values + offset, mask=mask, other=0.0)
        accumulated = accumulated * rescale[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        running_sum = running_sum * rescale + tl.sum(weights, axis=1)
        running_max = new_max
    return running_max, running_sum, accumulated
