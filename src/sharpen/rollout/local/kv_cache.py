"""The keys and values that rows see while they are decoded: those of their prompt, kept once for all rows of a
group, and those of their own tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor


class KVCache(ABC):
    """Axes: P prompts, B rows in the order of their prompts, K heads of keys and values, D size of a head."""

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
        """``room``: tokens that a row may have beside its prompt. Keys are stored in multiples of ``block``."""
        self._heads, self._head_dim, self._scale = heads, head_dim, scale
        self._room, self._block = room, block
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
            longest = rounded_up(max(self._prompt_lengths, default=0), self._block)
            for prompt in (self._prompt_keys, self._prompt_values):
                for layer, tensor in enumerate(prompt):
                    prompt[layer] = tensor[:, :, :longest].index_select(0, index_P)
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
        needed = rounded_up(self._longest, self._block)
        if needed > self._keys[0].shape[2]:
            room = min(rounded_up(self._room, self._block), self._ample(needed))
            for own in (self._keys, self._values):
                for layer, tensor in enumerate(own):
                    own[layer] = _widened(tensor, room)
            self._arrangement += 1

    def look(self) -> None:
        """Say, once for all layers of a step, where its keys go."""
        # Rows that have ended go on with the others; they write over their own last place.
        torch.clamp(self._written_B, max=self._room - 1, out=self._slot_B)
        self._written_B += 1

    @abstractmethod
    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Take in each row's key and value [B, K, D]; what its queries [B, heads, D] see, [B, heads · D]."""

    @abstractmethod
    def _ample(self, needed: int) -> int:
        """How many of their own tokens rows get room for when they need so much."""

    def _arrange(self) -> None:
        """Other rows, or others' prompts."""
        self._arrangement += 1
        self._slot_B = torch.empty_like(self._written_B)
        self._prompt_B = torch.tensor(self._prompt_of_row, dtype=torch.long, device=self._device)
        self._prompt_length_P = torch.tensor(self._prompt_lengths, dtype=torch.long, device=self._device)
        self._prompt_length_B = self._prompt_length_P[self._prompt_B]


def _stacked(old: Tensor, new: Tensor, block: int) -> Tensor:
    """Along the prompts, the shorter ones with room at their end."""
    length = max(old.shape[2], rounded_up(new.shape[2], block))
    return torch.cat([_widened(x, length) for x in (old, new) if len(x)] or [new])


def rounded_up(number: int, block: int) -> int:
    return -(-number // block) * block


def _widened(x: Tensor, room: int) -> Tensor:
    if x.shape[2] == room:
        return x
    wide = x.new_zeros(*x.shape[:2], room, x.shape[3])
    wide[:, :, : x.shape[2]] = x
    return wide
