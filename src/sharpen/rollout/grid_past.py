"""The past where torch's own operations attend: batched products of all rows of a prompt, and of each row's tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sharpen.rollout.past import Past, rounded_up

AHEAD = 64
CPU_BLOCK = 16
"""Keys are looked at in multiples of so many, what is over being hidden from rows: PyTorch's softmax over fewer, or an
odd number, is many times slower."""
GPU_BLOCK = 128
"""The same on a GPU, where a step is captured anew whenever its shapes change."""


class GridPast(Past):
    """A row attends to its prompt and to its own tokens apart, and the two results are put together by their
    log-sum-exp: softmax over the union of two sets is the mean of the softmaxes over each, weighted by their sums.
    """

    def __init__(self, *sizes: int, dtype: torch.dtype, device: torch.device, **settings: Any) -> None:
        self._precise = torch.promote_types(dtype, torch.float32)
        self._visible = 0
        block = CPU_BLOCK if device.type == "cpu" else GPU_BLOCK
        super().__init__(*sizes, dtype=dtype, device=device, block=block, **settings)

    def make_room(self) -> None:
        super().make_room()
        visible = rounded_up(self._longest, self._block)
        self._arrangement += visible != self._visible
        self._visible = visible

    def look(self) -> None:
        super().look()
        hidden_BL = torch.arange(self._visible, device=self._device) > self._slot_B[:, None]
        self._bias_B1L = _bias(hidden_BL, self._precise).repeat_interleave(self._heads, dim=0)[:, None]

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rows, heads, size = len(self._prompt_of_row), self._heads, self._head_dim
        q = q.to(self._keys[layer].dtype).view(rows, heads, -1, size)
        keys, values = self._keys[layer], self._values[layer]
        keys[self._row_B, :, self._slot_B] = k.to(keys.dtype)
        values[self._row_B, :, self._slot_B] = v.to(values.dtype)
        own_keys, own_values = (x.flatten(0, 1)[:, : self._visible] for x in (keys, values))
        own, own_lse = _attention(q.flatten(0, 1), own_keys, own_values, self._bias_B1L, self._scale)
        prompt_keys, prompt_values = (x[layer].flatten(0, 1) for x in (self._prompt_keys, self._prompt_values))
        shown, shown_lse = _attention(self._to_grid(q), prompt_keys, prompt_values, self._prompt_bias, self._scale)
        shown, shown_lse = self._from_grid(shown), self._from_grid(shown_lse[..., None])
        own, own_lse = own.view(rows, heads, -1, size), own_lse.view(rows, heads, -1, 1)
        return torch.lerp(own, shown, torch.sigmoid(shown_lse - own_lse)).reshape(rows, -1)

    def _to_grid(self, q: Tensor) -> Tensor:
        """Queries [B, K, R, D] beside the others of their prompt: [P · K, width · R, D]."""
        prompts, width = len(self._prompt_lengths), self._width
        if self._cell_B is not None:
            grid = q.new_zeros(prompts * width, *q.shape[1:])
            q = grid.index_copy_(0, self._cell_B, q)
        return q.view(prompts, width, *q.shape[1:]).transpose(1, 2).reshape(prompts * self._heads, -1, self._head_dim)

    def _from_grid(self, x: Tensor) -> Tensor:
        prompts, width = len(self._prompt_lengths), self._width
        x = x.view(prompts, self._heads, width, -1, x.shape[-1]).transpose(1, 2).flatten(0, 1)
        return x if self._cell_B is None else x[self._cell_B]

    def _ample(self, needed: int) -> int:
        return max(needed + AHEAD, needed * 5 // 4)

    def _arrange(self) -> None:
        """Each prompt's rows on a line of a grid of ``width`` cells; without gaps, the rows are the cells."""
        super()._arrange()
        counts = [0] * len(self._prompt_lengths)
        places = []
        for p in self._prompt_of_row:
            places.append(counts[p])
            counts[p] += 1
        self._width = max(counts, default=0)
        cells = [p * self._width + place for p, place in zip(self._prompt_of_row, places, strict=True)]
        straight = cells == list(range(len(counts) * self._width))
        self._cell_B = None if straight else torch.tensor(cells, device=self._device)
        self._row_B = torch.arange(len(cells), device=self._device)
        self._prompt_bias = None
        widest = self._prompt_keys[0].shape[2]
        if any(length < widest for length in self._prompt_lengths):
            hidden_PL = torch.arange(widest, device=self._device) >= self._prompt_length_P[:, None]
            self._prompt_bias = _bias(hidden_PL, self._precise).repeat_interleave(self._heads, dim=0)[:, None]


def _attention(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, scale: float) -> tuple[Tensor, Tensor]:
    """Softmax attention of [N, R, D] on [N, L, D] and the log of its sum, [N, R], in at least float32."""
    if q.dtype == torch.bfloat16:
        scores = torch.bmm(q, k.transpose(1, 2), out_dtype=torch.float32).mul_(scale)
        scores = scores if bias is None else scores.add_(bias)
    elif bias is None:
        scores = torch.bmm(q, k.transpose(1, 2)).mul_(scale)
    else:
        scores = torch.baddbmm(bias.expand(-1, q.shape[1], -1), q, k.transpose(1, 2), alpha=scale)
    log_share = scores.log_softmax(dim=-1)
    # The first key is hidden from nobody. This is several times faster than torch.logsumexp.
    lse = scores[..., 0] - log_share[..., 0]
    return torch.bmm(log_share.exp_().to(v.dtype), v).to(lse.dtype), lse


def _bias(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
