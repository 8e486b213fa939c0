"""A KV cache whose attention uses torch's own operations: one batched product per prompt, one per row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sharpen.rollout.local.kv_cache import MIN_HEADROOM, KVCache, rounded_up

CPU_BLOCK = 16
"""The number of visible keys is rounded up to a multiple of this, and the excess is masked: PyTorch's softmax over
fewer, or over an odd number, is many times slower."""
GPU_BLOCK = 128
"""The same on a GPU, where a change of shapes means capturing a new graph."""


class TorchKVCache(KVCache):
    """Scores against a prompt are computed for all rows of the prompt in one product; those against a row's generated
    tokens are computed per row. Both go through one softmax. Keys are stored multiplied by the attention scale.
    """

    def __init__(self, *sizes: int, dtype: torch.dtype, device: torch.device, **settings: Any) -> None:
        self._score_dtype = torch.promote_types(dtype, torch.float32)
        self._visible = 0
        self._same_length = True
        self._views: tuple[int, list[tuple[Tensor, ...]]] = (0, [])
        block_size = CPU_BLOCK if device.type == "cpu" else GPU_BLOCK
        super().__init__(*sizes, dtype=dtype, device=device, block_size=block_size, **settings)

    @property
    def stored_scale(self) -> float:
        return 1.0

    def stored_keys(self, k: Tensor) -> Tensor:
        return k * self._scale

    def add_rows(self, lengths: Sequence[int], copies: Sequence[int]) -> None:
        self._same_length = not self._prompt_of_row
        super().add_rows(lengths, copies)

    def reserve(self, slots: int | None = None) -> None:
        super().reserve(slots)
        visible = rounded_up(self._max_length, self._block_size)
        self._layout_version += visible != self._visible
        self._visible = visible

    def begin_step(self) -> None:
        super().begin_step()
        # Writing at an integer is much faster than at an index tensor, but a CUDA graph would replay the same integer.
        one_slot = self._same_length and self._device.type == "cpu"
        self._slot = self._max_length - 1 if one_slot else None
        last_B = self._slot_B[:1] if one_slot else self._slot_B
        masked_BL = torch.arange(self._visible, device=self._device) > last_B[:, None]
        bias_B1L = _bias(masked_BL, self._score_dtype)[:, None]
        self._own_bias = bias_B1L if one_slot else bias_B1L.repeat_interleave(self._kv_heads, dim=0)
        if self._views[0] != self._layout_version:
            self._views = self._layout_version, [self._visible_of(layer) for layer in range(len(self._keys))]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        self._write(layer, k, v)
        own_keys, own_values, prompt_keys, prompt_values = self._views[1][layer]
        rows, kv_heads, visible = len(self._prompt_of_row), self._kv_heads, self._visible
        q = q.to(own_keys.dtype).reshape(rows * kv_heads, -1, self._head_dim)
        own_scores = _scores(q, own_keys, self._own_bias)
        prompt_scores = self._from_grid(_scores(self._to_grid(q), prompt_keys, self._prompt_bias))
        weights = torch.cat((own_scores, prompt_scores), dim=-1).softmax(dim=-1).to(own_values.dtype)
        attended = torch.bmm(weights[..., :visible], own_values)
        attended_prompt = torch.bmm(self._to_grid(weights)[..., visible:], prompt_values)
        return attended.add_(self._from_grid(attended_prompt)).view(rows, -1)

    def _write(self, layer: int, k: Tensor, v: Tensor) -> None:
        keys, values = self._keys[layer], self._values[layer]
        if self._slot is None:
            keys[self._row_B, :, self._slot_B] = (k * self._scale).to(keys.dtype)
            values[self._row_B, :, self._slot_B] = v.to(values.dtype)
        else:
            torch.mul(k, self._scale, out=keys[:, :, self._slot])
            values[:, :, self._slot] = v

    def _visible_of(self, layer: int) -> tuple[Tensor, ...]:
        """A layer's visible keys and values, first of the rows, then of the prompts, each as one batch of matrices."""
        own = (x[layer][:, :, : self._visible] for x in (self._keys, self._values))
        of_prompts = self._prompt_keys[layer], self._prompt_values[layer]
        return tuple(x.flatten(0, 1) for x in (*own, *of_prompts))

    def _to_grid(self, x: Tensor) -> Tensor:
        """Gather the rows of each prompt: [B · K, R, ·] to [P · K, width · R, ·], with R query heads per key head."""
        cells = x.flatten(1).index_select(0, self._to_cell)
        return cells.view(len(self._prompt_lengths) * self._kv_heads, -1, x.shape[-1])

    def _from_grid(self, x: Tensor) -> Tensor:
        cells = x.view(len(self._to_cell), -1).index_select(0, self._from_cell)
        return cells.view(len(cells), -1, x.shape[-1])

    def _grown_capacity(self, needed: int) -> int:
        return max(needed + MIN_HEADROOM, needed * 5 // 4)

    def _update_layout(self) -> None:
        """The grid has cells [P, K, width], where width is the largest number of rows of any prompt. Prompts with fewer
        rows are padded with cells that repeat row 0, whose results are ignored."""
        super()._update_layout()
        counts = [0] * len(self._prompt_lengths)
        columns = []
        for p in self._prompt_of_row:
            columns.append(counts[p])
            counts[p] += 1
        width = max(counts, default=0)
        prompt_B = torch.tensor(self._prompt_of_row, dtype=torch.long)[:, None]
        head_K = torch.arange(self._kv_heads)
        cell_BK = (prompt_B * self._kv_heads + head_K) * width + torch.tensor(columns, dtype=torch.long)[:, None]
        from_cell = cell_BK.flatten()
        to_cell = torch.zeros(len(counts) * self._kv_heads * width, dtype=torch.long)
        to_cell[from_cell] = torch.arange(len(from_cell))
        self._to_cell, self._from_cell = to_cell.to(self._device), from_cell.to(self._device)
        self._row_B = torch.arange(len(columns), device=self._device)
        self._prompt_bias = None
        longest = self._prompt_keys[0].shape[2]
        if any(length < longest for length in self._prompt_lengths):
            masked_PL = torch.arange(longest, device=self._device) >= self._prompt_length_P[:, None]
            self._prompt_bias = _bias(masked_PL, self._score_dtype).repeat_interleave(self._kv_heads, dim=0)[:, None]


def _scores(q: Tensor, keys: Tensor, bias: Tensor | None) -> Tensor:
    """[N, R, L] of queries [N, R, D] and keys [N, L, D], in at least float32."""
    if q.dtype == torch.bfloat16:
        scores = torch.bmm(q, keys.mT, out_dtype=torch.float32)
        return scores if bias is None else scores.add_(bias)
    return torch.bmm(q, keys.mT) if bias is None else torch.baddbmm(bias.expand(len(q), q.shape[1], -1), q, keys.mT)


def _bias(masked: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(masked.shape, dtype=dtype, device=masked.device).masked_fill_(masked, -torch.inf)
