"""Attention of the new tokens of conversations, whose earlier keys and values were kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sharpen.rollout.local.kept import Kept
from sharpen.rollout.local.kv_cache import KVCache


class Continuation:
    """Contexts of which the first ``reused[p]`` tokens are in ``kept[p]``.

    ``keys`` and ``values`` hold those of every layer, [P, K, L, D]: the reused ones from the start, the new ones once
    each layer has attended. ``token_PW`` and ``position_PW`` are the new tokens, padded on the right.
    """

    def __init__(
        self, contexts: Sequence[tuple[int, ...]], kept: Sequence[Kept], reused: Sequence[int], cache: KVCache
    ) -> None:
        """``cache``: the one that the keys were kept from and go to."""
        self._cache = cache
        self.lengths = [len(context) for context in contexts]
        self.new_lengths = [length - r for length, r in zip(self.lengths, reused, strict=True)]
        device = kept[0].keys.device
        width, longest = max(self.new_lengths), max(self.lengths)
        token_PW = torch.zeros(len(contexts), width, dtype=torch.long)
        for p, (context, r) in enumerate(zip(contexts, reused, strict=True)):
            token_PW[p, : self.new_lengths[p]] = torch.tensor(context[r:])
        reused_P1, new_P1 = (torch.tensor(x)[:, None] for x in (reused, self.new_lengths))
        column_W = torch.arange(width)
        position_PW = reused_P1 + column_W
        # Padding is written nowhere.
        context_N, column_N = (column_W < new_P1).nonzero(as_tuple=True)
        self._written = context_N.to(device), position_PW[context_N, column_N].to(device)
        self._column = context_N.to(device), column_N.to(device)
        self._visible_P1WL = (torch.arange(longest) <= position_PW[..., None])[:, None].to(device)
        self.token_PW, self.position_PW = token_PW.to(device), position_PW.to(device)
        layers, kv_heads, _, head_dim = kept[0].keys.shape
        self.keys, self.values = (
            [kept[0].keys.new_zeros(len(contexts), kv_heads, longest, head_dim) for _ in range(layers)]
            for _ in range(2)
        )
        for p, (one, r) in enumerate(zip(kept, reused, strict=True)):
            for layer in range(layers):
                self.keys[layer][p, :, :r] = one.keys[layer, :, :r]
                self.values[layer][p, :, :r] = one.values[layer, :, :r]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Of queries [P · W, heads, D], and of new keys and values: [P · W, heads · D]."""
        q, k, v = (x.unflatten(0, self.token_PW.shape) for x in (q, self._cache.stored_keys(k), v))
        keys, values = self.keys[layer], self.values[layer]
        (context_N, position_N), column = self._written, self._column
        keys[context_N, :, position_N] = k[column].to(keys.dtype)
        values[context_N, :, position_N] = v[column].to(values.dtype)
        q = q.to(keys.dtype).transpose(1, 2)
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (keys, values))
        attended = nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=self._visible_P1WL, scale=self._cache.stored_scale
        )
        return attended.transpose(1, 2).flatten(2).flatten(0, 1)
