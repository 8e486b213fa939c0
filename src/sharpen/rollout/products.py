"""Matrix products of one input with several weights, for decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sharpen.models.linear import amd_has_onednn
from sharpen.rollout.low_rank import LowRank

_FEW_ROWS = 64
_LEAST_NUMBERS = 2**18
"""Products with fewer are done about as soon as oneDNN is called."""


class Product(Protocol):
    def __call__(self, x: Tensor) -> Tensor:
        """The results side by side, [N, sum of the sizes]."""
        ...

    def publish(self) -> None:
        """Take over the present weights."""
        ...

    def release(self) -> None:
        """Let go of what is kept for the present weights only and can be made again."""
        ...


class Shared:
    """The model's own linear layers, one after another."""

    def __init__(self, linears: Sequence[Any]) -> None:
        self._linears = linears

    def __call__(self, x: Tensor) -> Tensor:
        results = [linear(x) for linear in self._linears]
        return torch.cat(results, dim=-1) if len(results) > 1 else results[0]

    def publish(self) -> None:
        pass

    def release(self) -> None:
        pass


class Copied:
    """A copy of the weights in their own type, as one matrix in oneDNN's blocked layout, until it is released.

    It is made at the first use and not kept while weights are trained, so it neither ages nor adds to the memory of
    training.
    """

    def __init__(self, linears: Sequence[Any]) -> None:
        self._linears = linears
        self._kept: tuple[Tensor, Tensor | None] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self._kept is None:
            weight, bias = _side_by_side(self._linears, self._linears[0].weight.dtype)
            self._kept = _in_blocks(weight), bias
        return _blocked_product(x, *self._kept)

    def publish(self) -> None:
        self.release()

    def release(self) -> None:
        self._kept = None


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
        fresh, bias = _side_by_side(self._linears, torch.bfloat16)
        if self._blocked:
            self._weight, self._bias = _in_blocks(fresh), bias
        elif self._weight.shape == fresh.shape:
            # In place: a captured graph goes on reading from here.
            self._weight.copy_(fresh)
            if self._bias is not None and bias is not None:
                self._bias.copy_(bias)
        else:
            self._weight, self._bias = fresh, bias

    def release(self) -> None:
        pass

    def __call__(self, x: Tensor) -> Tensor:
        if self._blocked:
            return _blocked_product(x, self._weight, self._bias)
        return nn.functional.linear(x, self._weight, self._bias)


def make_product(linears: Sequence[Any], *, rounded: bool) -> Product:
    """In float32 decoding computes with the very weights that are trained, or a copy as long as a call lasts."""
    if rounded:
        adapted = any(hasattr(linear, "lora_A") for linear in linears)
        return LowRank(Rounded(linears), linears) if adapted else Rounded(linears)
    return Copied(linears) if _blocks_are_faster(linears) else Shared(linears)


def _blocks_are_faster(linears: Sequence[Any]) -> bool:
    """In float32 on an AMD processor: of few rows, MKL computes products there at a fraction of the memory's rate."""
    many = sum(linear.weight.numel() for linear in linears) >= _LEAST_NUMBERS
    return (
        many
        and amd_has_onednn()
        and all(
            isinstance(linear, nn.Linear)
            and linear.weight.device.type == "cpu"
            and linear.weight.dtype == torch.float32
            for linear in linears
        )
    )


def _side_by_side(linears: Sequence[Any], dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """The weights and biases as one."""
    weight = torch.cat([linear.weight.detach().to(dtype) for linear in linears])
    biases = [linear.bias.detach().to(dtype) for linear in linears if linear.bias is not None]
    return weight, torch.cat(biases) if biases else None


def _in_blocks(weight: Tensor) -> Tensor:
    blocks: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, _FEW_ROWS)
    return blocks


def _blocked_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result
