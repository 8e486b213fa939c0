"""A cache of scores by content."""

from __future__ import annotations

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b

Logits = tuple[float, ...]


class ScoreCache:
    """An LRU cache of the logits of ``size`` sequences.

    ``hits`` and ``misses`` count lookups; duplicates within one call are hits for every size.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.hits = self.misses = 0
        self._kept: OrderedDict[bytes, Logits] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: bytes) -> Logits | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def put(self, key: bytes, logits: Logits) -> None:
        self._kept[key] = logits
        self._kept.move_to_end(key)
        while len(self._kept) > self.size:
            self._kept.popitem(last=False)


def content_key(token_ids: Sequence[int], positions: Sequence[int]) -> bytes:
    """A key of the tokens and the positions at which they are read."""
    content = array("q", [len(token_ids), *token_ids, *positions]).tobytes()
    return blake2b(content, digest_size=16).digest()
