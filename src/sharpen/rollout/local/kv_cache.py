"""The KV cache of the running batch: a prompt is stored once for its group, generated tokens are stored per row.

Its size is counted in slots: the keys and values of one token in all layers, padding and headroom included.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

MIN_HEADROOM = 64


class KVCache(ABC):
    """Axes: P prompts, B rows, K key–value heads, L tokens, D head dimension."""

    def __init__(
        self,
        layers: int,
        kv_heads: int,
        head_dim: int,
        *,
        scale: float,
        dtype: torch.dtype,
        device: torch.device,
        max_new_tokens: int,
        block_size: int,
    ) -> None:
        """``max_new_tokens``: per row, besides its prompt. Capacities are multiples of ``block_size``."""
        self._kv_heads, self._head_dim, self._scale = kv_heads, head_dim, scale
        self._max_new_tokens, self._block_size = max_new_tokens, block_size
        self._layout_version = 0

        def empty_layers() -> list[Tensor]:
            return [torch.empty(0, kv_heads, 0, head_dim, dtype=dtype, device=device) for _ in range(layers)]

        self._prompt_keys, self._prompt_values = empty_layers(), empty_layers()
        self._keys, self._values = empty_layers(), empty_layers()
        self._prompt_lengths: list[int] = []
        self._prompt_of_row: list[int] = []
        self._device = device
        # Counts on after a row has finished.
        self._length_B = torch.empty(0, dtype=torch.long, device=device)
        # An upper bound of the generated tokens of any row.
        self._max_length = 0
        self._update_layout()

    @property
    def layout_version(self) -> int:
        """Changes whenever the next step would use other tensors or shapes than the last."""
        return self._layout_version

    @property
    def position_B(self) -> Tensor:
        """The position of each row's next token, counted from the start of its prompt."""
        return self._prompt_length_B + self._length_B

    @property
    def slots(self) -> int:
        """Slots held."""
        return self._slots(len(self._prompt_lengths), self._longest, len(self._prompt_of_row), self._capacity)

    def slots_after_adding(self, lengths: Sequence[int], copies: Sequence[int], max_new_tokens: int) -> int:
        """Slots held once these prompts are there, with ``copies[p]`` rows each, and every row has room for a token."""
        longest = max(self._longest, rounded_up(max(lengths), self._block_size))
        prompts, rows = len(self._prompt_lengths) + len(lengths), len(self._prompt_of_row) + sum(copies)
        return self._slots(prompts, longest, rows, self._next_capacity(max(max_new_tokens, self._max_new_tokens)))

    @property
    def must_grow(self) -> bool:
        """Whether another token in every row takes more slots than are held."""
        return self._needed(self._max_new_tokens) > self._capacity

    def slots_to_decode(self, rows: int) -> int:
        """Slots held once only the first ``rows`` rows are left, and every one has room for another token."""
        prompts, longest = len(self._prompt_lengths), self._longest
        if rows < len(self._prompt_of_row) and len(kept := set(self._prompt_of_row[:rows])) < prompts:
            prompts, longest = len(kept), rounded_up(max(self._prompt_lengths[p] for p in kept), self._block_size)
        return self._slots(prompts, longest, rows, self._next_capacity(self._max_new_tokens))

    def slots_alone(self, length: int) -> int:
        """The most slots that a single row of ``length`` tokens needs, prompt included, wherever it is interrupted."""
        # At any cut, both parts are rounded up to whole blocks.
        block = self._block_size
        return (length + 2 * (block - 1)) // block * block

    def raise_limit(self, max_new_tokens: int) -> None:
        """Allow rows of ``max_new_tokens`` tokens besides their prompt."""
        if max_new_tokens > self._max_new_tokens:
            # Rows that have finished count on, but their tokens were never written beyond the old limit.
            self._length_B.clamp_(max=self._max_new_tokens)
            self._max_new_tokens = max_new_tokens

    def copy_row(self, row: int, own: int) -> tuple[Tensor, Tensor]:
        """A row's stored keys, and values, of its prompt and of ``own`` tokens after it: [layers, K, L, D]."""
        prompt = self._prompt_of_row[row]
        length = self._prompt_lengths[prompt]
        keys, values = (
            torch.cat(
                (
                    torch.stack([x[prompt, :, :length] for x in of_prompts]),
                    torch.stack([x[row, :, :own] for x in of_rows]),
                ),
                dim=2,
            )
            for of_prompts, of_rows in ((self._prompt_keys, self._keys), (self._prompt_values, self._values))
        )
        return keys, values

    @property
    def stored_scale(self) -> float:
        """What the product of a query and a stored key is multiplied by."""
        return self._scale

    def stored_keys(self, k: Tensor) -> Tensor:
        """Keys as they are stored."""
        return k

    def add_layer(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Add one layer's stored keys, and values, of new prompts: [P, K, L, D]. Add all layers, then `add_rows`."""
        for old, new in ((self._prompt_keys, keys), (self._prompt_values, values)):
            old[layer] = _cat_prompts(old[layer], new.to(old[layer].dtype), self._block_size)

    def add_rows(self, lengths: Sequence[int], copies: Sequence[int]) -> None:
        """Add ``copies[p]`` rows for each new prompt, of ``lengths[p]`` tokens."""
        first = len(self._prompt_lengths)
        self._prompt_lengths += lengths
        new_rows = [first + p for p, n in enumerate(copies) for _ in range(n)]
        self._prompt_of_row += new_rows
        self._length_B = torch.cat([self._length_B, self._length_B.new_zeros(len(new_rows))])
        for cache in (self._keys, self._values):
            for layer, tensor in enumerate(cache):
                cache[layer] = torch.cat([tensor, tensor.new_zeros(len(new_rows), *tensor.shape[1:])])
        self._update_layout()

    def select_rows(self, index_B: Tensor) -> None:
        """Keep only the rows ``index_B``, in that order, and the prompts that they use."""
        rows = index_B.tolist()
        kept = sorted({self._prompt_of_row[b] for b in rows})
        if len(kept) < len(self._prompt_lengths):
            index_P = torch.tensor(kept, device=self._device)
            self._prompt_lengths = [self._prompt_lengths[p] for p in kept]
            longest = rounded_up(max(self._prompt_lengths, default=0), self._block_size)
            for prompt_cache in (self._prompt_keys, self._prompt_values):
                for layer, tensor in enumerate(prompt_cache):
                    prompt_cache[layer] = tensor[:, :, :longest].index_select(0, index_P)
        new_index = {p: i for i, p in enumerate(kept)}
        self._prompt_of_row = [new_index[self._prompt_of_row[b]] for b in rows]
        self._length_B = self._length_B[index_B]
        self._max_length = min(int(self._length_B.max()), self._max_new_tokens) if rows else 0
        for cache in (self._keys, self._values):
            for layer, tensor in enumerate(cache):
                cache[layer] = tensor.index_select(0, index_B)
        self._update_layout()

    def reserve(self, slots: int | None = None) -> None:
        """Make room for one more token per row. Call it before each step.

        Headroom stays within ``slots`` in all, if given; see `slots_to_decode` for what fits.
        """
        needed = self._needed(self._max_new_tokens)
        self._max_length = min(self._max_length + 1, self._max_new_tokens)
        if needed > self._capacity:
            capacity = min(rounded_up(self._max_new_tokens, self._block_size), self._grown_capacity(needed))
            if slots is not None:
                left = slots - self._slots(len(self._prompt_lengths), self._longest, 0, 0)
                capacity = min(capacity, max(needed, left // len(self._prompt_of_row)))
            for cache in (self._keys, self._values):
                for layer, tensor in enumerate(cache):
                    cache[layer] = _padded(tensor, capacity)
            self._layout_version += 1

    def begin_step(self) -> None:
        """Compute, once for all layers of a step, the slot that each row writes to."""
        # Finished rows are decoded along with the others; they overwrite their own last slot.
        torch.clamp(self._length_B, max=self._max_new_tokens - 1, out=self._slot_B)
        self._length_B += 1

    @abstractmethod
    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store each row's new key and value [B, K, D], then attend with its queries [B, heads, D]: [B, heads · D]."""

    @abstractmethod
    def _grown_capacity(self, needed: int) -> int:
        """The slots per row to allocate when ``needed`` are needed."""

    @property
    def _longest(self) -> int:
        return self._prompt_keys[0].shape[2]

    @property
    def _capacity(self) -> int:
        return self._keys[0].shape[2]

    @staticmethod
    def _slots(prompts: int, longest: int, rows: int, capacity: int) -> int:
        return prompts * longest + rows * capacity

    def _needed(self, max_new_tokens: int) -> int:
        return rounded_up(min(self._max_length + 1, max_new_tokens), self._block_size)

    def _next_capacity(self, max_new_tokens: int) -> int:
        """The slots per row that the next token takes, with little headroom where the cache has to grow."""
        needed = self._needed(max_new_tokens)
        if needed <= self._capacity:
            return self._capacity
        return min(rounded_up(max_new_tokens, self._block_size), max(needed + MIN_HEADROOM, needed * 5 // 4))

    def _update_layout(self) -> None:
        """Recompute what depends on the rows and their prompts."""
        self._layout_version += 1
        self._slot_B = torch.empty_like(self._length_B)
        self._prompt_B = torch.tensor(self._prompt_of_row, dtype=torch.long, device=self._device)
        self._prompt_length_P = torch.tensor(self._prompt_lengths, dtype=torch.long, device=self._device)
        self._prompt_length_B = self._prompt_length_P[self._prompt_B]


def _cat_prompts(old: Tensor, new: Tensor, block_size: int) -> Tensor:
    """Concatenate along the prompts, padding the shorter ones on the right."""
    length = max(old.shape[2], rounded_up(new.shape[2], block_size))
    return torch.cat([_padded(x, length) for x in (old, new) if len(x)] or [new])


def rounded_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _padded(x: Tensor, length: int) -> Tensor:
    if x.shape[2] == length:
        return x
    padded = x.new_zeros(*x.shape[:2], length, x.shape[3])
    padded[:, :, : x.shape[2]] = x
    return padded
