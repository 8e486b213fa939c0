"""Attention over a packed row (`sharpen.models.packing.segments`), without an [L, L] mask.

It is registered with transformers as ``sharpen``. A model set to it computes rows that come with segments here and
everything else as with ``sdpa``. The name is not written to a saved configuration.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from sharpen.models.kernels import private_torch
from sharpen.models.kernels.compiled import compiles
from sharpen.models.kernels.flash import Spans, fits, flash_over_segments, spans_of
from sharpen.models.kernels.flex import flex_over_segments, mask_of
from sharpen.models.packing.attention_tiles import HeadTile, HeadTiles, tiles_for_heads
from sharpen.models.packing.segments import Segments

NAME = "sharpen"
SAVED_HEAD_SIZES = 4
"""A tile's probabilities are saved for the backward pass if it has at most so many times head_dim keys, so that they
take no more memory than so many query tensors. Otherwise they are recomputed."""


def attend_to_segments(config: Any, segments: Segments) -> dict[str, Any]:
    """Prepare a model for a packed row, and return the further arguments of its forward."""
    private_torch.set_attention(config, NAME)
    device = segments.device
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    # transformers passes on any 4-D mask and would otherwise build one; this one is never read.
    unused = torch.empty(1, 1, 0, 0, device=device)
    if fits(device, head_dim):
        return {"spans": spans_of(segments), "attention_mask": unused}
    if compiles(device):
        return {"attention_mask": mask_of(segments)}
    return {"segments": segments, "attention_mask": unused}


def _forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | BlockMask | None,
    *,
    segments: Segments | None = None,
    spans: Spans | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """The mask is given by ``spans``, a block mask or ``segments`` (see `attend_to_segments`), or as a plain mask."""
    if spans is not None:
        return flash_over_segments(query, key, value, spans, kwargs["scaling"]).transpose(1, 2), None
    if isinstance(attention_mask, BlockMask):
        return flex_over_segments(query, key, value, attention_mask, kwargs["scaling"]).transpose(1, 2), None
    if segments is None:
        result: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
        return result
    return attention_over_segments(query, key, value, segments, kwargs["scaling"]).transpose(1, 2), None


AttentionInterface.register(NAME, _forward)
AttentionMaskInterface.register(NAME, sdpa_mask)


def attention_over_segments(
    query_1HLD: Tensor, key_1hLD: Tensor, value_1hLD: Tensor, segments: Segments, scale: float
) -> Tensor:
    """softmax(scale · q kᵀ) v over the tokens each may attend to: [1, H, L, D]. H is a multiple of h, the KV heads.

    Scores and softmax are in at least float32, the other products in the values' type.
    """
    result: Tensor = _Tiled.apply(query_1HLD, key_1hLD, value_1hLD, segments, scale)  # type: ignore[no-untyped-call]
    return result


class _Tiled(torch.autograd.Function):
    """Per tile, with P = softmax(scale · Q Kᵀ): O = P V; dV = Pᵀ dO, dS = P ∘ (dP − rowsum(P ∘ dP)) for dP = dO Vᵀ."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float) -> Tensor:
        heads, head_dim = key.shape[1], key.shape[3]
        layout = _tiles(segments, heads)
        with torch.autocast(query.device.type, enabled=False):
            q, k, v = _by_token(query, heads), _by_token(key, heads), _by_token(value, heads)
            outputs, saved = [], []
            for tile in layout.tiles:
                probabilities = _probabilities(q, k, tile, scale).to(v.dtype)
                outputs.append((probabilities @ _blocks(v, tile.key, tile, heads)).view(len(tile.query), -1))
                if tile.mask_XcK.shape[2] <= SAVED_HEAD_SIZES * head_dim:
                    saved.append(probabilities)
            mixed = _gathered(outputs, layout.place)
        ctx.save_for_backward(q, k, v, *saved)
        ctx.settings = segments, scale, heads
        return mixed.view(1, segments.length, -1, value.shape[3]).transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *saved = ctx.saved_tensors
        segments, scale, heads = ctx.settings
        layout, head_dim = _tiles(segments, heads), k.shape[1]
        g = _by_token(grad, heads)
        precise = torch.promote_types(v.dtype, torch.float32)
        grad_k, grad_v = (torch.zeros(x.shape, dtype=precise, device=x.device) for x in (k, v))
        grads_q = []
        with torch.autocast(q.device.type, enabled=False):
            for tile in layout.tiles:
                if tile.mask_XcK.shape[2] <= SAVED_HEAD_SIZES * head_dim:
                    probabilities = saved.pop(0)
                else:
                    probabilities = _probabilities(q, k, tile, scale).to(v.dtype)
                grad_tile = g.index_select(0, tile.query).index_fill_(0, tile.padding, 0)
                grad_out = grad_tile.view(tile.blocks * heads, -1, v.shape[1])
                grad_v.index_add_(0, tile.key, (probabilities.mT @ grad_out).view(len(tile.key), -1).to(precise))
                grad_p = grad_out @ _blocks(v, tile.key, tile, heads).mT
                grad_s = private_torch.softmax_backward_data(grad_p, probabilities, -1, v.dtype)
                wide_q = _blocks(q, tile.query, tile, heads, head_dim).to(v.dtype)
                grad_k.index_add_(0, tile.key, (grad_s.mT @ wide_q).view(len(tile.key), -1).to(precise))
                grads_q.append((grad_s @ _blocks(k, tile.key, tile, heads).to(v.dtype)).view(len(tile.query), -1))
            grad_q = _gathered(grads_q, layout.place).to(q.dtype).mul_(scale)
            grad_k = grad_k.mul_(scale).to(k.dtype)
        shaped = (x.view(1, segments.length, -1, d) for x, d in ((grad_q, head_dim), (grad_k, head_dim)))
        grad_query, grad_key = (x.transpose(1, 2) for x in shaped)
        grad_value = grad_v.to(v.dtype).view(1, segments.length, -1, v.shape[1]).transpose(1, 2)
        return grad_query, grad_key, grad_value, None, None


def _tiles(segments: Segments, heads: int) -> HeadTiles:
    return segments.derive(("tiles", heads), lambda: tiles_for_heads(segments, heads))


def _by_token(x_1HLD: Tensor, heads: int) -> Tensor:
    """[L · h, H / h · D]: the query heads of a KV head side by side."""
    return x_1HLD[0].transpose(0, 1).reshape(x_1HLD.shape[2] * heads, -1)


def _blocks(x: Tensor, index: Tensor, tile: HeadTile, heads: int, size: int | None = None) -> Tensor:
    """[S · h, tokens · query heads per KV head, D]."""
    return x.index_select(0, index).view(tile.blocks * heads, -1, size or x.shape[1])


def _probabilities(q: Tensor, k: Tensor, tile: HeadTile, scale: float) -> Tensor:
    """[S · h, queries · query heads per KV head, keys], in at least float32."""
    precise = torch.promote_types(q.dtype, torch.float32)
    heads = len(tile.key) // (tile.blocks * tile.mask_XcK.shape[2])
    query = _blocks(q, tile.query, tile, heads, k.shape[1]).to(precise) * scale
    scores = query @ _blocks(k, tile.key, tile, heads).to(precise).mT
    X, c, keys = tile.mask_XcK.shape
    scores.view(tile.blocks, heads, c, -1, keys).add_(tile.mask_XcK.view(X, 1, c, 1, keys))
    return torch.softmax(scores, dim=-1)


def _gathered(parts: list[Tensor], place: Tensor) -> Tensor:
    return (parts[0] if len(parts) == 1 else torch.cat(parts)).index_select(0, place)
