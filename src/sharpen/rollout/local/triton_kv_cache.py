"""The past on a GPU: attention of a row to its prompt and to its own tokens in one kernel."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from sharpen.rollout.local.kv_cache import KVCache

LEAST_ROOM = 256


class TritonKVCache(KVCache):
    """Nothing is padded: each row looks at as many keys as it has. ``make_room`` seldom has anything to do."""

    def __init__(self, *sizes: int, **settings: Any) -> None:
        super().__init__(*sizes, block=1, **settings)

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # It needs Triton, which is not everywhere.
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

    def _ample(self, needed: int) -> int:
        return max(2 * needed, LEAST_ROOM)
