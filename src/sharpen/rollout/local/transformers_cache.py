"""A transformers cache for decoding: it grows in large steps, and its rows can be repeated and removed."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer

_MIN_HEADROOM = 64


def grown_capacity(length: int) -> int:
    """The tokens that a cache of ``length`` tokens gets room for when it grows."""
    return max(length + _MIN_HEADROOM, length * 5 // 4)


class _GrowingLayer(DynamicLayer):
    """A full-attention layer that writes to buffers with spare capacity, instead of reallocating for every token."""

    def __init__(self, dtype: torch.dtype | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._dtype = dtype
        self._length = 0
        self.limit: int | None = None
        """The most tokens to keep room for, unless there are more."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = self._dtype or key_states.dtype, key_states.device
        self.keys, self.values = (
            x.new_empty((*x.shape[:2], 0, x.shape[3]), dtype=self.dtype) for x in (key_states, value_states)
        )
        self._key_buffer, self._value_buffer = self.keys, self.values
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start, self._length = self._length, self._length + key_states.shape[2]
        if self._length > self._key_buffer.shape[2]:
            capacity = grown_capacity(self._length)
            self._grow(capacity if self.limit is None else max(self._length, min(capacity, self.limit)))
        self._key_buffer[:, :, start : self._length] = key_states
        self._value_buffer[:, :, start : self._length] = value_states
        return self._view()

    @property
    def capacity(self) -> int:
        return int(self._key_buffer.shape[2]) if self.is_initialized else 0

    def get_seq_length(self) -> int:
        return self._length

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self._key_buffer = self._key_buffer.index_select(0, beam_idx)
        self._value_buffer = self._value_buffer.index_select(0, beam_idx)
        self._view()

    def _grow(self, capacity: int) -> None:
        for name in ("_key_buffer", "_value_buffer"):
            old = getattr(self, name)
            grown = old.new_empty((*old.shape[:2], capacity, old.shape[3]))
            grown[:, :, : old.shape[2]] = old
            setattr(self, name, grown)

    def _view(self) -> tuple[Tensor, Tensor]:
        keys, values = (buffer[:, :, : self._length] for buffer in (self._key_buffer, self._value_buffer))
        self.keys, self.values = keys, values
        return keys, values


def cache_argument(model: nn.Module) -> str | None:
    """The name of the forward's argument for a cache; None without one.

    transformers names it ``past_key_values`` before 5.24 and ``cache`` since; of recurrent models, ``cache_params``.
    """
    parameters = inspect.signature(model.forward).parameters
    return next((name for name in ("past_key_values", "cache", "cache_params") if name in parameters), None)


def make_cache(config: Any, dtype: torch.dtype | None) -> Any:
    """An empty cache for any architecture. Full-attention layers store ``dtype``, or the dtype of the first keys."""
    cache: Any = DynamicCache(config=config)
    cache.layers = [_GrowingLayer(dtype) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    if not cache.layers:
        cache.layer_class_to_replicate = lambda: _GrowingLayer(dtype)
    return cache


def select_cache_rows(cache: Any, index_B: Tensor) -> None:
    """Keep or repeat the rows ``index_B`` of every layer, in that order."""
    # Layers inherit a batch_select_indices that forgets a recurrent state, or an index; reorder_cache moves all.
    for layer in cache.layers:
        layer.reorder_cache(index_B)


def limit_capacity(cache: Any, limit: int) -> None:
    """Full-attention layers keep room for at most ``limit`` tokens, unless there are more."""
    for layer in cache.layers:
        if isinstance(layer, _GrowingLayer):
            layer.limit = limit


def capacity_of(cache: Any) -> int:
    """The tokens per row that the largest layer has room for; 0 without a layer of full attention."""
    return max((layer.capacity for layer in cache.layers if isinstance(layer, _GrowingLayer)), default=0)


@torch.inference_mode()
def bytes_of_a_token(model: nn.Module, argument: str, dtype: torch.dtype | None) -> int:
    """Of its keys and values in all layers: measured, as every architecture has its own.

    Layers with a sliding window count in full, although they hold no more than their window.
    """
    config: Any = model.config
    cache = make_cache(config, dtype)
    token = torch.ones(1, 1, dtype=torch.long, device=next(model.parameters()).device)
    # Without positions, a model of recurrent layers alone asks its cache for a length that it does not have.
    first = torch.zeros_like(token)
    model(input_ids=token, position_ids=first, attention_mask=token, use_cache=True, **{argument: cache})
    held = [x for layer in cache.layers for x in (getattr(layer, "keys", None), getattr(layer, "values", None))]
    # A recurrent state does not grow with the tokens.
    return sum(x.numel() * x.element_size() for x in held if x is not None) or 1
