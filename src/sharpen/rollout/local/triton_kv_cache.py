"""A KV cache on a GPU, whose attention over prompt and generated tokens is one Triton kernel."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sharpen.rollout.local.kv_cache import KVCache

MIN_CAPACITY = 256


class TritonKVCache(KVCache):
    """Attention is not padded: each row reads exactly its own keys. The capacity doubles when it is used up."""

    def __init__(self, *sizes: int, **settings: Any) -> None:
        super().__init__(*sizes, block_size=1, **settings)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # Imported here because Triton is not available on every system.
        from sharpen.rollout.local.decode_kernel import attend_one_token

        return attend_one_token(
            q,
            k,
            v,
            self._keys[layer],
            self._values[layer],
            self._slot_B,
            self._prompt_keys[layer],
            self._prompt_values[layer],
            self._prompt_B,
            self._prompt_length_B,
            self._scale,
        )

    def _grown_capacity(self, needed: int) -> int:
        return max(2 * needed, MIN_CAPACITY)
