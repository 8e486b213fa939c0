"""A key–value cache for decoding: room is made ahead, a prompt's entries serve its whole group, rows can leave."""

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import DynamicCache, DynamicLayer

_AHEAD = 64


class _RoomyLayer(DynamicLayer):
    """A full-attention layer that writes into buffers with room to grow, instead of copying all at every token."""

    def __init__(self, dtype: torch.dtype | None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._stored = dtype
        self._length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = self._stored or key_states.dtype, key_states.device
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
            self._grow(max(self._length + _AHEAD, self._length * 5 // 4))
        self._key_buffer[:, :, start : self._length] = key_states
        self._value_buffer[:, :, start : self._length] = value_states
        return self._view()

    def get_seq_length(self) -> int:
        return self._length

    def batch_select_indices(self, indices: Tensor) -> None:
        self._key_buffer = self._key_buffer.index_select(0, indices)
        self._value_buffer = self._value_buffer.index_select(0, indices)
        self._view()

    def _grow(self, room: int) -> None:
        for name in ("_key_buffer", "_value_buffer"):
            old = getattr(self, name)
            grown = old.new_empty((*old.shape[:2], room, old.shape[3]))
            grown[:, :, : old.shape[2]] = old
            setattr(self, name, grown)

    def _view(self) -> tuple[Tensor, Tensor]:
        keys, values = (buffer[:, :, : self._length] for buffer in (self._key_buffer, self._value_buffer))
        self.keys, self.values = keys, values
        return keys, values


def cache_argument(model: nn.Module) -> str | None:
    """What the model's forward calls its key–value cache; None where it has none, or only a recurrent state.

    transformers calls it ``cache`` from 5.24 on, and recurrent states too; before, ``past_key_values``.
    """
    parameters = inspect.signature(model.forward).parameters
    if "past_key_values" in parameters:
        return "past_key_values"
    if "cache" in parameters and any(
        isinstance(layer, DynamicLayer) for layer in make_cache(model.config, None).layers
    ):
        return "cache"
    return None


def make_cache(config: Any, dtype: torch.dtype | None) -> Any:
    """An empty cache for any architecture. Full-attention layers store ``dtype``, or what they are given."""
    cache: Any = DynamicCache(config=config)
    cache.layers = [_RoomyLayer(dtype) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    if not cache.layers:
        cache.layer_class_to_replicate = lambda: _RoomyLayer(dtype)
    return cache


def select_rows(cache: Any, index_B: Tensor) -> None:
    """Keep or repeat the rows ``index_B`` of every layer, in that order."""
    for layer in cache.layers:
        select = getattr(layer, "batch_select_indices", None) or layer.reorder_cache
        select(index_B)
