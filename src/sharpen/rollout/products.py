"""Matrix products of one input with several weights, for decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sharpen.models.linear import turned_is_faster, turned_product
from sharpen.rollout.low_rank import LowRank

_FEW_ROWS = 64


class Product(Protocol):
    def __call__(self, x: Tensor) -> Tensor:
        """The results side by side, [N, sum of the sizes]."""
        ...

    def publish(self) -> None:
        """Take over the present weights."""
        ...


class Shared:
    """The model's own linear layers, one after another."""

    def __init__(self, linears: Sequence[Any]) -> None:
        self._linears = linears
        self._weights = [linear.weight for linear in linears]
        self._turns = all(isinstance(linear, nn.Linear) for linear in linears)

    def __call__(self, x: Tensor) -> Tensor:
        if self._turns and turned_is_faster(x, self._weights):
            result = turned_product(x, self._weights)
            biases = [linear.bias for linear in self._linears]
            return result if biases[0] is None else result.add_(torch.cat(biases))
        results = [linear(x) for linear in self._linears]
        return torch.cat(results, dim=-1) if len(results) > 1 else results[0]

    def publish(self) -> None:
        pass


class Rounded:
    """A copy of the weights in bfloat16, as one matrix.

    The rounding is the one that autocast applies at every use. Where oneDNN computes bfloat16 products, the matrix is
    kept in the blocked layout that it wants: with few rows, bringing it there at every product is a third of the time.
    """

    def __init__(self, linears: Sequence[Any]) -> None:
        self._linears = linears
        weight = linears[0].weight
        self._blocked = (
            weight.device.type == "cpu"
            and torch.backends.mkldnn.is_available()
            and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        )
        self._weight = torch.empty(0)
        self._bias: Tensor | None = None
        self.publish()

    @torch.no_grad()
    def publish(self) -> None:
        fresh = torch.cat([linear.weight.to(torch.bfloat16) for linear in self._linears])
        biases = [linear.bias for linear in self._linears if linear.bias is not None]
        bias = torch.cat([b.to(torch.bfloat16) for b in biases]) if biases else None
        if self._blocked:
            self._weight, self._bias = torch.ops.mkldnn._reorder_linear_weight(fresh, _FEW_ROWS), bias
        elif self._weight.shape == fresh.shape:
            # In place: a captured graph goes on reading from here.
            self._weight.copy_(fresh)
            if self._bias is not None and bias is not None:
                self._bias.copy_(bias)
        else:
            self._weight, self._bias = fresh, bias

    def __call__(self, x: Tensor) -> Tensor:
        if self._blocked:
            product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")
            return product
        return nn.functional.linear(x, self._weight, self._bias)


def make_product(linears: Sequence[Any], *, rounded: bool) -> Product:
    """In float32 decoding computes with the very weights that are trained."""
    if not rounded:
        return Shared(linears)
    adapted = any(hasattr(linear, "lora_A") for linear in linears)
    return LowRank(Rounded(linears), linears) if adapted else Rounded(linears)
