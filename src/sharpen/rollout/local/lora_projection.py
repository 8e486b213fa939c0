"""Matrix products of layers with LoRA adapters, for decoding: computed as the trainer does, never merged.

A merged weight in bfloat16 would lose most of a young adapter: W is made of bfloat16 numbers already, and what is added
to one is rounded away where it is less than half the distance to the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from sharpen.models.adapter import NAME

if TYPE_CHECKING:
    from sharpen.rollout.local.projections import Product


class LoraProjection:
    """Adds (alpha / rank) · B A x, in bfloat16, to the product of the frozen weights."""

    def __init__(self, frozen: Product, linears: Sequence[Any]) -> None:
        self._frozen = frozen
        self._linears = linears
        self._a = self._b = torch.empty(0)
        self._scale = next(linear.scaling[NAME] for linear in linears if hasattr(linear, "lora_A"))
        self.publish()

    @torch.no_grad()
    def publish(self) -> None:
        """Take over A and B. The frozen weights are what they were."""
        pairs = [_pair(linear) for linear in self._linears]
        a = torch.cat([a for a, _ in pairs]).to(torch.bfloat16)
        # Each layer's results come of its own rows of A alone.
        b = torch.block_diag(*[b for _, b in pairs]).to(torch.bfloat16)
        if self._a.shape == a.shape:
            # In place: a captured graph goes on reading from here.
            self._a.copy_(a)
            self._b.copy_(b)
        else:
            self._a, self._b = a, b

    def release(self) -> None:
        """Nothing: the frozen weights stay what they are, so a copy of them need not be made again."""

    def __call__(self, x: Tensor) -> Tensor:
        update = nn.functional.linear(nn.functional.linear(x, self._a), self._b)
        return self._frozen(x).add_(update, alpha=self._scale)


def _pair(linear: Any) -> tuple[Tensor, Tensor]:
    """A and B; of a layer without an adapter, A without rows and B without columns."""
    if hasattr(linear, "lora_A"):
        return linear.lora_A[NAME].weight, linear.lora_B[NAME].weight
    weight = linear.weight
    return weight.new_empty(0, weight.shape[1]), weight.new_empty(weight.shape[0], 0)
