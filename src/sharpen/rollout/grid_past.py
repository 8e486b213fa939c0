"""The past where torch's own operations attend: batched products of all rows of a prompt, and of each row's tokens."""

from __future__ import annotations

from collections.abc import Sequence
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
        rows, heads, size = len(self._prompt_of_row), self._heads, self._head_dim
        q = q.to(own_keys.dtype).view(rows, heads, -1, size)
        own = _scores(q.flatten(0, 1), own_keys, self._own_bias).view(rows, heads, -1, self._visible)
        shown = self._from_grid(_scores(self._to_grid(q), prompt_keys, self._prompt_bias))
        share = torch.cat((own, shown), dim=-1).softmax(dim=-1).to(own_values.dtype)
        own, shown = share.split((self._visible, share.shape[-1] - self._visible), dim=-1)
        mixed = torch.bmm(own.flatten(0, 1), own_values).view(rows, heads, -1, size)
        return mixed.add_(self._from_grid(torch.bmm(self._to_grid(shown), prompt_values))).view(rows, -1)

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
        """[B, K, R, ·] beside the others of their prompt: [P · K, width · R, ·]."""
        prompts, width = len(self._prompt_lengths), self._width
        if self._cell_B is not None:
            grid = x.new_zeros(prompts * width, *x.shape[1:])
            x = grid.index_copy_(0, self._cell_B, x)
        x = x.view(prompts, width, *x.shape[1:]).transpose(1, 2)
        return x.reshape(prompts * self._heads, -1, x.shape[-1])

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


def _scores(q: Tensor, keys: Tensor, bias: Tensor | None) -> Tensor:
    """[N, R, L] of queries [N, R, D] and keys [N, L, D], in at least float32."""
    if q.dtype == torch.bfloat16:
        scores = torch.bmm(q, keys.mT, out_dtype=torch.float32)
        return scores if bias is None else scores.add_(bias)
    return torch.bmm(q, keys.mT) if bias is None else torch.baddbmm(bias.expand(len(q), q.shape[1], -1), q, keys.mT)


def _bias(hidden: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(hidden.shape, dtype=dtype, device=hidden.device).masked_fill_(hidden, -torch.inf)
