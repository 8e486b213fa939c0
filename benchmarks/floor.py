"""The least that a case needs: floating-point operations and bytes, and from them the least time.

A phase takes at least the longer of its operations at the machine's matrix rate and its bytes at the memory's. Counted
are the products of matrices and attention: a prompt goes through all layers once for its group, a completion's last
token never, and the head is applied once for each completion token. What is elementwise is free. Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cases import Case

FLOAT32_BYTES = 4


@dataclass(frozen=True, slots=True)
class Shape:
    """A Llama's sizes."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    tied: bool

    @classmethod
    def of(cls, folder: Path) -> Shape:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        heads = config["num_attention_heads"]
        return cls(
            hidden=config["hidden_size"],
            intermediate=config["intermediate_size"],
            layers=config["num_hidden_layers"],
            heads=heads,
            kv_heads=config["num_key_value_heads"],
            head_dim=config.get("head_dim") or config["hidden_size"] // heads,
            vocabulary=config["vocab_size"],
            tied=config["tie_word_embeddings"],
        )

    @property
    def body(self) -> int:
        """Weights of the layers' matrices."""
        attention = self.hidden * self.head_dim * (2 * self.heads + 2 * self.kv_heads)
        return self.layers * (attention + 3 * self.hidden * self.intermediate)

    @property
    def head(self) -> int:
        return self.vocabulary * self.hidden

    @property
    def parameters(self) -> int:
        """All that is trained: matrices, embeddings and the norms' scales."""
        return self.body + self.head * (1 if self.tied else 2) + self.hidden * (2 * self.layers + 1)

    @property
    def pair(self) -> int:
        """Operations of a forward pass for one query and one key: their product, and the value's share."""
        return 4 * self.layers * self.heads * self.head_dim

    @property
    def kv(self) -> int:
        """Numbers that a token's keys and values are."""
        return 2 * self.layers * self.kv_heads * self.head_dim


@dataclass(frozen=True, slots=True)
class Work:
    """A phase: floating-point operations, and bytes that go to or from memory."""

    operations: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Rates:
    """What the machine does: operations per second, and bytes per second from memory and from its last cache."""

    operations: float
    memory: float
    cache: float
    cache_bytes: int

    def seconds(self, phases: Iterable[Work]) -> float:
        return sum(max(work.operations / self.operations, work.bytes / self._bandwidth(work.bytes)) for work in phases)

    def _bandwidth(self, size: float) -> float:
        """What a phase needs may lie in the cache already where all of it fits."""
        return self.cache if size <= self.cache_bytes else self.memory


def training(shape: Shape, case: Case, lengths: Sequence[int], number_bytes: int) -> list[Work]:
    """Forward and backward, then AdamW in float32 with a clipped gradient."""
    inputs = case.prompts * case.prompt + sum(n - 1 for n in lengths)
    pairs = case.prompts * _causal(case.prompt) + sum((n - 1) * case.prompt + _causal(n - 1) for n in lengths)
    operations = 6 * shape.body * inputs + 3 * shape.pair * pairs + 6 * shape.head * sum(lengths)
    # Weights are read forward and backward, and the gradient is written.
    weights = 2 * number_bytes * (shape.body + shape.head) + FLOAT32_BYTES * shape.parameters
    # The norm reads the gradient; AdamW reads weight, gradient and two moments, and writes all but the gradient.
    optimizer = (1 + 4 + 3) * FLOAT32_BYTES * shape.parameters
    return [Work(operations, weights), Work(0, optimizer)]


def rollout(shape: Shape, case: Case, lengths: Sequence[int], number_bytes: int) -> list[Work]:
    """Prefill, all prompts at once, then one forward pass for each further token of the completions still open."""
    prompt_operations = 2 * shape.body * case.prompt + shape.pair * _causal(case.prompt) + 2 * shape.head
    weights = number_bytes * (shape.body + shape.head)
    phases = [Work(case.prompts * prompt_operations, weights)]
    for step in range(1, max(lengths)):
        open_rows = [i for i, n in enumerate(lengths) if n > step]
        groups = len({i // case.group for i in open_rows})
        rows = len(open_rows)
        operations = rows * (2 * (shape.body + shape.head) + shape.pair * (case.prompt + step))
        seen = groups * case.prompt + rows * step
        phases.append(Work(operations, weights + number_bytes * shape.kv * seen))
    return phases


def _causal(tokens: int) -> int:
    """Pairs of a query and a key that is not later."""
    return tokens * (tokens + 1) // 2
