"""Prefill and decode of the running batch: the interface, and its implementation for plain architectures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from sharpen.rollout.local.inference_model import InferenceModel
from sharpen.types import Prompt

PREFILL_TOKENS = 8192
"""The most prompt tokens, padding included, in one prefill pass."""


class ModelRunner(Protocol):
    """A model with the KV cache of the running batch."""

    continuous_batching: bool
    """Whether requests may join a running batch, or only an empty one."""

    @property
    def layout_version(self) -> int:
        """Changes whenever the next step would use other tensors or shapes than the last."""
        ...

    def prefill(self, prompts: Sequence[Prompt], copies: Sequence[int]) -> Tensor:
        """Add ``copies[p]`` rows that begin with prompt p; the logits of their first tokens, [new rows, V]."""
        ...

    def reserve(self) -> None:
        """Make room in the cache for one more token per row."""
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

    def __init__(self, model: InferenceModel, max_new_tokens: int) -> None:
        """``max_new_tokens``: the most that a row's cache is given room for."""
        self._model = model
        self._cache = model.make_kv_cache(max_new_tokens)

    @property
    def layout_version(self) -> int:
        return self._cache.layout_version

    def prefill(self, prompts: Sequence[Prompt], copies: Sequence[int]) -> Tensor:
        logits_PV: list[Tensor] = []
        for start, end in _prefill_passes([len(p.token_ids) for p in prompts]):
            logits, keys, values = self._model.prefill(prompts[start:end])
            lengths = [len(p.token_ids) for p in prompts[start:end]]
            self._cache.add_prompts(keys, values, lengths, copies[start:end])
            logits_PV.append(logits)
        logits = torch.cat(logits_PV)
        return logits.repeat_interleave(torch.tensor(list(copies), device=logits.device), dim=0)

    def reserve(self) -> None:
        self._cache.reserve()

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
