"""Projections of layers with LoRA adapters, for decoding: computed as in training, never merged.

Merging in bfloat16 would lose most of an adapter early in training: W holds bfloat16 numbers, and an update smaller
than half the distance to the next such number is rounded away.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sharpen.models.adapter import NAME

if TYPE_CHECKING:
    from sharpen.rollout.local.projections import Projection


class LoraProjection:
    """Adds (alpha / rank) · B A x, in bfloat16, to the projection by the frozen weights."""

    keeps_copy = True

    def __init__(self, frozen: Projection, linears: Sequence[Any]) -> None:
        self._frozen = frozen
        self._linears = linears
        self._a = self._b = torch.empty(0)
        self._scale = next(linear.scaling[NAME] for linear in linears if hasattr(linear, "lora_A"))
        self.reload()

    @property
    def copy_bytes(self) -> int:
        return self._frozen.copy_bytes + self._a.nbytes + self._b.nbytes

    @torch.no_grad()
    def reload(self) -> None:
        """Load A and B. The frozen weights have not changed."""
        pairs = [_pair(linear) for linear in self._linears]
        a = torch.cat([a for a, _ in pairs]).to(torch.bfloat16)
        # Block-diagonal: each layer's output depends on its own rows of A alone.
        b = torch.block_diag(*[b for _, b in pairs]).to(torch.bfloat16)
        if self._a.shape == a.shape:
            # In place: a captured graph keeps reading these tensors.
            self._a.copy_(a)
            self._b.copy_(b)
        else:
            self._a, self._b = a, b

    def release(self) -> None:
        """Does nothing: the frozen weights do not change, so their copy stays valid."""

    def __call__(self, x: Tensor) -> Tensor:
        update = nn.functional.linear(nn.functional.linear(x, self._a), self._b)
        return self._frozen(x).add_(update, alpha=self._scale)


def _pair(linear: Any) -> tuple[Tensor, Tensor]:
    """A and B; for a layer without an adapter, an A without rows and a B without columns."""
    if hasattr(linear, "lora_A"):
        return linear.lora_A[NAME].weight, linear.lora_B[NAME].weight
    weight = linear.weight
    return weight.new_empty(0, weight.shape[1]), weight.new_empty(weight.shape[0], 0)
