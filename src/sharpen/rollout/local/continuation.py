"""Attention of the new tokens of conversations, whose earlier keys and values were kept."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sharpen.rollout.local.kept import Kept
from sharpen.rollout.local.kv_cache import KVCache


class Continuation:
    """Contexts of which the first ``reused[p]`` tokens are in ``kept[p]``.

    ``token_PW`` and ``position_PW`` are the new tokens, padded on the right.
    """

    def __init__(
        self, contexts: Sequence[tuple[int, ...]], kept: Sequence[Kept], reused: Sequence[int], cache: KVCache
    ) -> None:
        """``cache``: the one that the keys were kept from and go to."""
        self._cache, self._kept, self._reused = cache, kept, reused
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

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Of queries [P · W, heads, D], and of new keys and values: [P · W, heads · D].

        All keys and values of the layer go to the cache.
        """
        q, k, v = (x.unflatten(0, self.token_PW.shape) for x in (q, self._cache.stored_keys(k), v))
        keys = self._joined([one.keys[layer] for one in self._kept], k)
        values = self._joined([one.values[layer] for one in self._kept], v)
        self._cache.add_layer(layer, keys, values)
        q = q.to(keys.dtype).transpose(1, 2)
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (keys, values))
        attended = nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=self._visible_P1WL, scale=self._cache.stored_scale
        )
        return attended.transpose(1, 2).flatten(2).flatten(0, 1)

    def _joined(self, kept: Sequence[Tensor], new_PWKD: Tensor) -> Tensor:
        """[P, K, L, D] of what was kept of each context, [K, ·, D], and of its new tokens."""
        kv_heads, _, head_dim = kept[0].shape
        result = kept[0].new_zeros(len(kept), kv_heads, max(self.lengths), head_dim)
        for p, (one, r) in enumerate(zip(kept, self._reused, strict=True)):
            result[p, :, :r] = one[:, :r]
        context_N, position_N = self._written
        result[context_N, :, position_N] = new_PWKD[self._column].to(result.dtype)
        return result
