"""The past where torch's own operations attend: batched products of all rows of a prompt, and of each row's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sharpen.rollout.local.kv_cache import KVCache, rounded_up

AHEAD = 64
CPU_BLOCK = 16
"""Keys are looked at in multiples of so many, what is over being hidden from rows: PyTorch's softmax over fewer, or an
odd number, is many times slower."""
GPU_BLOCK = 128
"""The same on a GPU, where a step is captured anew whenever its shapes change."""


class TorchKVCache(KVCache):
    """A row's scores for its prompt, computed beside those of the prompt's other rows, and for its own tokens are put
    together under one softmax. Keys are stored times the scale of the scores.
    """

    def __init__(self, *sizes: int, dtype: torch.dtype, device: torch.device, **settings: Any) -> None:
        self._precise = torch.promote_types(dtype, torch.float32)
        self._visible = 0
        self._began_together = True
        self._views: tuple[int, list[tuple[Tensor, ...]]] = (0, [])
        block = CPU_BLOCK if device.type == "cpu" else GPU_BLOCK
        super().__init__(*sizes, dtype=dtype, device=device, block=block, **settings)

    def admit(
        self, keys: Sequence[Tensor], values: Sequence[Tensor], lengths: Sequence[int], copies: Sequence[int]
    ) -> None:
        self._began_together = not self._prompt_of_row
        super().admit([k * self._scale for k in keys], values, lengths, copies)

    def make_room(self) -> None:
        super().make_room()
        visible = rounded_up(self._longest, self._block)
        self._arrangement += visible != self._visible
        self._visible = visible

    def look(self) -> None:
        super().look()
        # A number is written to much faster than an index, but a CUDA graph would repeat it.
        together = self._began_together and self._device.type == "cpu"
        self._slot = self._longest - 1 if together else None
        last_B = self._slot_B[:1] if together else self._slot_B
        hidden_BL = torch.arange(self._visible, device=self._device) > last_B[:, None]
        bias_B1L = _bias(hidden_BL, self._precise)[:, None]
        self._own_bias = bias_B1L if together else bias_B1L.repeat_interleave(self._heads, dim=0)
        if self._views[0] != self._arrangement:
            self._views = self._arrangement, [self._viewed(layer) for layer in range(len(self._keys))]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self._write(layer, k, v)
        own_keys, own_values, prompt_keys, prompt_values = self._views[1][layer]
        rows, heads, visible = len(self._prompt_of_row), self._heads, self._visible
        q = q.to(own_keys.dtype).reshape(rows * heads, -1, self._head_dim)
        own = _scores(q, own_keys, self._own_bias)
        shown = self._from_grid(_scores(self._to_grid(q), prompt_keys, self._prompt_bias))
        share = torch.cat((own, shown), dim=-1).softmax(dim=-1).to(own_values.dtype)
        mixed = torch.bmm(share[..., :visible], own_values)
        shown = torch.bmm(self._to_grid(share)[..., visible:], prompt_values)
        return mixed.add_(self._from_grid(shown)).view(rows, -1)

    def _write(self, layer: int, k: Tensor, v: Tensor) -> None:
        keys, values = self._keys[layer], self._values[layer]
        if self._slot is None:
            keys[self._row_B, :, self._slot_B] = (k * self._scale).to(keys.dtype)
            values[self._row_B, :, self._slot_B] = v.to(values.dtype)
        else:
            torch.mul(k, self._scale, out=keys[:, :, self._slot])
            values[:, :, self._slot] = v

    def _viewed(self, layer: int) -> tuple[Tensor, ...]:
        """Keys and values of a layer that a step looks at, of rows and of prompts, each as one batch of matrices."""
        own = (x[layer][:, :, : self._visible] for x in (self._keys, self._values))
        of_prompts = self._prompt_keys[layer], self._prompt_values[layer]
        return tuple(x.flatten(0, 1) for x in (*own, *of_prompts))

    def _to_grid(self, x: Tensor) -> Tensor:
        """[B · K, R, ·] beside the others of their prompt: [P · K, width · R, ·]."""
        cells = x.flatten(1).index_select(0, self._to_cell)
        return cells.view(len(self._prompt_lengths) * self._heads, -1, x.shape[-1])

    def _from_grid(self, x: Tensor) -> Tensor:
        cells = x.view(len(self._to_cell), -1).index_select(0, self._of_cell)
        return cells.view(len(cells), -1, x.shape[-1])

    def _ample(self, needed: int) -> int:
        return max(needed + AHEAD, needed * 5 // 4)

    def _arrange(self) -> None:
        """The grid has cells [P, K, width], a line for each prompt's rows and head. Where a prompt has fewer rows than
        others, the rest of its line holds another row's, which is computed and not looked at."""
        super()._arrange()
        counts = [0] * len(self._prompt_lengths)
        places = []
        for p in self._prompt_of_row:
            places.append(counts[p])
            counts[p] += 1
        width = max(counts, default=0)
        prompt_B = torch.tensor(self._prompt_of_row, dtype=torch.long)[:, None]
        head_K = torch.arange(self._heads)
        cell_BK = (prompt_B * self._heads + head_K) * width + torch.tensor(places, dtype=torch.long)[:, None]
        of_cell = cell_BK.flatten()
        to_cell = torch.zeros(len(counts) * self._heads * width, dtype=torch.long)
        to_cell[of_cell] = torch.arange(len(of_cell))
        self._to_cell, self._of_cell = to_cell.to(self._device), of_cell.to(self._device)
        self._row_B = torch.arange(len(places), device=self._device)
        self._prompt_bias = None
        widest = self._prompt_keys[0].shape[2]
        if any(length < widest for length in self._prompt_lengths):
            hidden_PL = torch.arange(widest, device=self._device) >= self._prompt_length_P[:, None]
            self._prompt_bias = _bias(hidden_PL, self._precise).repeat_interleave(self._heads, dim=0)[:, None]


def _scores(q: Tensor, keys: Tensor, bias: Tensor | None) -> Tensor:
    """[N, R, L] of queries [N, R, D] and keys [N, L, D], in at least float32."""
    if q.dtype == torch.bfloat16:
        scores = torch.bmm(q, keys.mT, out_dtype=torch.float32)
        return scores if bias is None else scores.add_(bias)
    return torch.bmm(q, keys.mT) if bias is None else torch.baddbmm(bias.expand(len(q), q.shape[1], -1), q, keys.mT)


def _bias(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
