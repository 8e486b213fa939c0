"""A model runner for architectures whose cache cannot be used: every token computes its whole sequence again."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from sharpen.models.policy import Policy
from sharpen.rollout.local.kept import Kept
from sharpen.rollout.local.model_runner import PREFILL_TOKENS

BYTES_PER_TOKEN = 8
"""Of a token's id, which is all that is held of it."""


class RecomputingRunner:
    """Holds token ids only. Sequences of the same length are computed together, without padding.

    For n new tokens after p, attention costs O(n (p + n)²) instead of O(n (p + n)).
    """

    continuous_batching = True
    keeps = False
    must_grow = False

    def __init__(self, policy: Policy, model: nn.Module) -> None:
        self._policy, self._model = policy, model
        self._rows: list[tuple[int, ...]] = []
        self.layout_version = 0
        accepted = inspect.signature(policy.model.forward).parameters
        self._arguments = {"use_cache": False} | ({"logits_to_keep": 1} if "logits_to_keep" in accepted else {})

    @property
    def slots(self) -> int:
        return sum(map(len, self._rows))

    def slots_after_adding(self, lengths: Sequence[int], copies: Sequence[int], max_new_tokens: int) -> int:
        added = sum(n * (length + 1) for length, n in zip(lengths, copies, strict=True))
        return self.slots + len(self._rows) + added

    def slots_to_decode(self, rows: int) -> int:
        return sum(len(row) + 1 for row in self._rows[:rows])

    def slots_alone(self, length: int) -> int:
        return length

    def raise_limit(self, max_new_tokens: int) -> None:
        pass

    def prefill(self, contexts: Sequence[tuple[int, ...]], copies: Sequence[int]) -> Tensor:
        logits_PV = self._logits(contexts)
        self._rows += [context for context, n in zip(contexts, copies, strict=True) for _ in range(n)]
        return logits_PV.repeat_interleave(torch.tensor(list(copies), device=logits_PV.device), dim=0)

    def extend(self, contexts: Sequence[tuple[int, ...]], kept: Sequence[Kept], reused: Sequence[int]) -> Tensor:
        raise NotImplementedError("it keeps no conversations")

    def copy_row(self, row: int, own: int) -> tuple[Tensor, Tensor]:
        raise NotImplementedError("it keeps no conversations")

    def reserve(self, slots: int) -> None:
        self.layout_version += 1

    def decode(self, token_B: Tensor) -> Tensor:
        self._rows = [(*row, token) for row, token in zip(self._rows, token_B.tolist(), strict=True)]
        return self._logits(self._rows)

    def select_rows(self, index_B: Tensor) -> None:
        self._rows = [self._rows[b] for b in index_B.tolist()]

    def _logits(self, rows: Sequence[tuple[int, ...]]) -> Tensor:
        """Of the next token of each row, [B, V]."""
        found: dict[int, Tensor] = {}
        for part in _of_equal_length(rows):
            ids_bL = torch.tensor([rows[b] for b in part], device=self._policy.device)
            with self._policy.autocast():
                logits_bV = self._model(input_ids=ids_bL, **self._arguments).logits[:, -1]
            found |= dict(zip(part, logits_bV, strict=True))
        return torch.stack([found[b] for b in range(len(rows))])


def _of_equal_length(rows: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    """The numbers of the rows, in parts of one length and at most `PREFILL_TOKENS` tokens, or one row."""
    by_length: dict[int, list[int]] = {}
    for b, row in enumerate(rows):
        by_length.setdefault(len(row), []).append(b)
    for length, numbers in by_length.items():
        size = max(1, PREFILL_TOKENS // length)
        for start in range(0, len(numbers), size):
            yield numbers[start : start + size]
