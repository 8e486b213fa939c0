"""Prefill and decode of the running batch: the interface, and its implementation for plain architectures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from sharpen.rollout.local.continuation import Continuation
from sharpen.rollout.local.inference_model import InferenceModel
from sharpen.rollout.local.kept import Kept

PREFILL_TOKENS = 8192
"""The most tokens, padding included, in one prefill pass."""
_KEPT_PER_TOKEN = 8
"""A kept token of a conversation counts as this part of a new one: it takes memory but no computation of its own."""


class ModelRunner(Protocol):
    """A model with the KV cache of the running batch, whose size is counted in slots of one token's keys and values."""

    continuous_batching: bool
    """Whether requests may join a running batch, or only an empty one."""
    keeps: bool
    """Whether it can copy a row's keys and values and extend them."""

    @property
    def layout_version(self) -> int:
        """Changes whenever the next step would use other tensors or shapes than the last."""
        ...

    @property
    def slots(self) -> int:
        """Slots held."""
        ...

    def slots_after_adding(self, lengths: Sequence[int], copies: Sequence[int], max_new_tokens: int) -> int:
        """Slots held after a prefill of contexts of these lengths, with room for a token in every row."""
        ...

    @property
    def must_grow(self) -> bool:
        """Whether another token in every row takes more slots than are held."""
        ...

    def slots_to_decode(self, rows: int) -> int:
        """Slots held once only the first ``rows`` rows are left, with room for another token in each."""
        ...

    def slots_alone(self, length: int) -> int:
        """The most slots for a single row of ``length`` tokens, context included, even if it is interrupted."""
        ...

    def raise_limit(self, max_new_tokens: int) -> None:
        """Allow rows of ``max_new_tokens`` tokens after their context. Call it before rows are added."""
        ...

    def prefill(self, contexts: Sequence[tuple[int, ...]], copies: Sequence[int]) -> Tensor:
        """Add ``copies[p]`` rows that begin with context p; the logits of their first tokens, [new rows, V]."""
        ...

    def extend(self, contexts: Sequence[tuple[int, ...]], kept: Sequence[Kept], reused: Sequence[int]) -> Tensor:
        """Add a row per context, of which the first ``reused[p]`` tokens are in ``kept[p]``; logits, [new rows, V]."""
        ...

    def copy_row(self, row: int, own: int) -> tuple[Tensor, Tensor]:
        """Keys and values of a row's context and of ``own`` tokens after it, [layers, K, L, D]: see `Kept`."""
        ...

    def reserve(self, slots: int) -> None:
        """Make room in the cache for one more token per row, within ``slots`` if `slots_to_decode` is."""
        ...

    def decode(self, token_B: Tensor) -> Tensor:
        """Append a token to every row, after ``reserve``; the logits of the next token, [B, V]."""
        ...

    def select_rows(self, index_B: Tensor) -> None:
        """Keep only the rows ``index_B``, in that order."""
        ...


class NativeRunner:
    """Runs an `InferenceModel`."""

    continuous_batching = True
    keeps = True

    def __init__(self, model: InferenceModel, max_new_tokens: int = 0) -> None:
        """``max_new_tokens``: the most that a row's cache is given room for, until `raise_limit`."""
        self._model = model
        self._cache = model.make_kv_cache(max_new_tokens)

    @property
    def layout_version(self) -> int:
        return self._cache.layout_version

    @property
    def slots(self) -> int:
        return self._cache.slots

    def slots_after_adding(self, lengths: Sequence[int], copies: Sequence[int], max_new_tokens: int) -> int:
        return self._cache.slots_after_adding(lengths, copies, max_new_tokens)

    @property
    def must_grow(self) -> bool:
        return self._cache.must_grow

    def slots_to_decode(self, rows: int) -> int:
        return self._cache.slots_to_decode(rows)

    def slots_alone(self, length: int) -> int:
        return self._cache.slots_alone(length)

    def raise_limit(self, max_new_tokens: int) -> None:
        self._cache.raise_limit(max_new_tokens)

    def prefill(self, contexts: Sequence[tuple[int, ...]], copies: Sequence[int]) -> Tensor:
        logits_PV: list[Tensor] = []
        for start, end in _prefill_passes([len(context) for context in contexts]):
            logits_PV.append(self._model.prefill(contexts[start:end], self._cache))
            self._cache.add_rows([len(context) for context in contexts[start:end]], copies[start:end])
        logits = torch.cat(logits_PV)
        return logits.repeat_interleave(torch.tensor(list(copies), device=logits.device), dim=0)

    def extend(self, contexts: Sequence[tuple[int, ...]], kept: Sequence[Kept], reused: Sequence[int]) -> Tensor:
        widths = [
            max(len(context) - r, len(context) // _KEPT_PER_TOKEN) for context, r in zip(contexts, reused, strict=True)
        ]
        logits_PV = []
        for start, end in _prefill_passes(widths):
            part = Continuation(contexts[start:end], kept[start:end], reused[start:end], self._cache)
            logits_PV.append(self._model.extend(part))
            self._cache.add_rows(part.lengths, [1] * len(part.lengths))
        return torch.cat(logits_PV)

    def copy_row(self, row: int, own: int) -> tuple[Tensor, Tensor]:
        return self._cache.copy_row(row, own)

    def reserve(self, slots: int | None = None) -> None:
        self._cache.reserve(slots)

    def decode(self, token_B: Tensor) -> Tensor:
        return self._model.decode(token_B, self._cache.position_B, self._cache)

    def select_rows(self, index_B: Tensor) -> None:
        self._cache.select_rows(index_B)


def _prefill_passes(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Ranges [start, end) of consecutive prompts that are prefilled in one pass."""
    passes: list[tuple[int, int]] = []
    start, width = 0, 0
    for i, length in enumerate(lengths):
        width = max(width, length)
        if i > start and width * (i + 1 - start) > PREFILL_TOKENS:
            passes.append((start, i))
            start, width = i, length
    return [*passes, (start, len(lengths))]
