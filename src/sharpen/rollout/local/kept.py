"""Keys and values of conversations that may go on."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Kept:
    """The tokens of a conversation that went through the model, with their keys and values [layers, K, L, D].

    The keys are as the KV cache stores them.
    """

    token_ids: tuple[int, ...]
    keys: Tensor
    values: Tensor

    def common_prefix(self, context: tuple[int, ...]) -> int:
        """How many tokens of ``context`` need not be computed again: never its last, whose logits are wanted."""
        most = min(len(self.token_ids), len(context) - 1)
        if self.token_ids[:most] == context[:most]:
            return most
        return next(i for i in range(most) if self.token_ids[i] != context[i])


class KeptConversations:
    """By draw id, the one that was kept first is evicted first."""

    def __init__(self) -> None:
        self._kept: dict[int, Kept] = {}
        self.slots = 0
        """Tokens held."""

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, draw_id: int, kept: Kept) -> None:
        self.drop([draw_id])
        self._kept[draw_id] = kept
        self.slots += len(kept.token_ids)

    def get(self, draw_id: int) -> Kept | None:
        return self._kept.get(draw_id)

    def drop(self, draw_ids: Collection[int]) -> None:
        for draw_id in draw_ids:
            if (kept := self._kept.pop(draw_id, None)) is not None:
                self.slots -= len(kept.token_ids)

    def evict(self, protected: Collection[int] = ()) -> bool:
        """Drop the one that was kept first, but for the ``protected`` draw ids. Whether there was one."""
        first = next((draw_id for draw_id in self._kept if draw_id not in protected), None)
        if first is None:
            return False
        self.drop([first])
        return True

    def clear(self) -> None:
        self.drop(list(self._kept))
