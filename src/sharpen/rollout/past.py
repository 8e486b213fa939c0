"""The keys and values that rows see while they are decoded: those of their prompt, kept once for all rows of a
group, and those of their own tokens."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_AHEAD = 64


class Past:
    """Axes: P prompts, B rows in the order of their prompts, K heads of keys and values, D size of a head.

    A row attends to its prompt and to its own tokens apart, and the two results are put together by their
    log-sum-exp: softmax over the union of two sets is the mean of the softmaxes over each, weighted by their sums.
    """

    def __init__(
        self,
        layers: int,
        heads: int,
        head_dim: int,
        *,
        scale: float,
        dtype: torch.dtype,
        device: torch.device,
        room: int,
        block: int,
    ) -> None:
        """``room``: tokens that a row may have beside its prompt. Rows look at keys in multiples of ``block``, what is
        over being hidden from them: shapes change seldom, and are such that a softmax is computed fast."""
        self._heads, self._head_dim, self._scale = heads, head_dim, scale
        self._room, self._block = room, block
        self._precise = torch.promote_types(dtype, torch.float32)
        self._arrangement = 0

        def nothing() -> list[Tensor]:
            return [torch.empty(0, heads, 0, head_dim, dtype=dtype, device=device) for _ in range(layers)]

        self._prompt_keys, self._prompt_values = nothing(), nothing()
        self._keys, self._values = nothing(), nothing()
        self._prompt_lengths: list[int] = []
        self._prompt_of_row: list[int] = []
        self._device = device
        self._written_B = torch.empty(0, dtype=torch.long, device=device)
        # No row has more tokens of its own than this.
        self._longest = 0
        self._visible = 0
        self._arrange()

    @property
    def arrangement(self) -> int:
        """Changes whenever a step would compute with other tensors or shapes than the one before."""
        return self._arrangement

    @property
    def position_B(self) -> Tensor:
        """Where the next token of each row stands, counted from the start of its prompt."""
        return self._prompt_length_B + self._written_B

    def admit(
        self, keys: Sequence[Tensor], values: Sequence[Tensor], lengths: Sequence[int], copies: Sequence[int]
    ) -> None:
        """Add prompts with their keys and values [P, K, L, D] of every layer, and ``copies[p]`` rows for each."""
        for old, new in ((self._prompt_keys, keys), (self._prompt_values, values)):
            for layer, added in enumerate(new):
                old[layer] = _stacked(old[layer], added.to(old[layer].dtype), self._block)
        first = len(self._prompt_lengths)
        self._prompt_lengths += lengths
        rows = [first + p for p, n in enumerate(copies) for _ in range(n)]
        self._prompt_of_row += rows
        self._written_B = torch.cat([self._written_B, self._written_B.new_zeros(len(rows))])
        for own in (self._keys, self._values):
            for layer, tensor in enumerate(own):
                own[layer] = torch.cat([tensor, tensor.new_zeros(len(rows), *tensor.shape[1:])])
        self._arrange()

    def keep(self, index_B: Tensor) -> None:
        """Let go of all rows but these, and of the prompts that none of them has."""
        rows = index_B.tolist()
        kept = sorted({self._prompt_of_row[b] for b in rows})
        if len(kept) < len(self._prompt_lengths):
            index_P = torch.tensor(kept, device=self._device)
            self._prompt_lengths = [self._prompt_lengths[p] for p in kept]
            longest = _rounded_up(max(self._prompt_lengths, default=0), self._block)
            for prompt in (self._prompt_keys, self._prompt_values):
                for layer, tensor in enumerate(prompt):
                    prompt[layer] = tensor.index_select(0, index_P)[:, :, :longest]
        number = {p: i for i, p in enumerate(kept)}
        self._prompt_of_row = [number[self._prompt_of_row[b]] for b in rows]
        self._written_B = self._written_B[index_B]
        self._longest = min(int(self._written_B.max()), self._room) if rows else 0
        for own in (self._keys, self._values):
            for layer, tensor in enumerate(own):
                own[layer] = tensor.index_select(0, index_B)
        self._arrange()

    def make_room(self) -> None:
        """For one more token in every row. To be called before each step."""
        self._longest = min(self._longest + 1, self._room)
        visible = _rounded_up(self._longest, self._block)
        if visible > self._keys[0].shape[2]:
            room = min(_rounded_up(self._room, self._block), max(visible + _AHEAD, visible * 5 // 4))
            for own in (self._keys, self._values):
                for layer, tensor in enumerate(own):
                    own[layer] = _widened(tensor, room)
        self._arrangement += visible != self._visible
        self._visible = visible

    def look(self) -> None:
        """Say, once for all layers of a step, where its keys go and who sees what."""
        # Rows that have ended go on with the others; they write over their own last place.
        torch.clamp(self._written_B, max=self._room - 1, out=self._slot_B)
        hidden_BL = torch.arange(self._visible, device=self._device) > self._slot_B[:, None]
        self._bias_B1L = _bias(hidden_BL, self._precise).repeat_interleave(self._heads, dim=0)[:, None]
        self._written_B += 1

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Take in each row's key and value [B, K, D]; what its queries [B, heads, D] see, [B, heads · D]."""
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

    def _arrange(self) -> None:
        """Each prompt's rows on a line of a grid of ``width`` cells; without gaps, the rows are the cells."""
        self._arrangement += 1
        self._slot_B = torch.empty_like(self._written_B)
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
        lengths = torch.tensor(self._prompt_lengths, device=self._device)
        self._prompt_length_B = lengths[torch.tensor(self._prompt_of_row, dtype=torch.long, device=self._device)]
        self._prompt_bias = None
        widest = self._prompt_keys[0].shape[2]
        if any(length < widest for length in self._prompt_lengths):
            hidden_PL = torch.arange(widest, device=self._device) >= lengths[:, None]
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


def _stacked(old: Tensor, new: Tensor, block: int) -> Tensor:
    """Along the prompts, the shorter ones with room at their end."""
    length = max(old.shape[2], _rounded_up(new.shape[2], block))
    return torch.cat([_widened(x, length) for x in (old, new) if len(x)] or [new])


def _rounded_up(number: int, block: int) -> int:
    return -(-number // block) * block


def _widened(x: Tensor, room: int) -> Tensor:
    if x.shape[2] == room:
        return x
    wide = x.new_zeros(*x.shape[:2], room, x.shape[3])
    wide[:, :, : x.shape[2]] = x
    return wide
