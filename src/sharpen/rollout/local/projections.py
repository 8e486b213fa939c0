"""Matrix products of one input with several weights, for decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sharpen.models.kernels import private_torch
from sharpen.models.kernels.linear import amd_has_onednn
from sharpen.rollout.local.lora_projection import LoraProjection

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
    """A copy of the weights in ``dtype``, as one matrix in oneDNN's blocked layout, until it is released.

    With few rows, bringing a matrix into that layout at every product is a third of the time and more. The copy is made
    at the first use and not kept while weights are trained, so it neither ages nor adds to the memory of training.
    """

    def __init__(self, linears: Sequence[Any], dtype: torch.dtype) -> None:
        self._linears, self._dtype = linears, dtype
        self._kept: tuple[Tensor, Tensor | None] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if self._kept is None:
            weight, bias = _side_by_side(self._linears, self._dtype)
            self._kept = _in_blocks(weight), bias
        return _blocked_product(x, *self._kept)

    def publish(self) -> None:
        self.release()

    def release(self) -> None:
        self._kept = None


class Rounded:
    """A copy of the weights in bfloat16, as one matrix. The rounding is the one that autocast applies at every use."""

    def __init__(self, linears: Sequence[Any]) -> None:
        self._linears = linears
        self._weight = torch.empty(0)
        self._bias: Tensor | None = None
        self.publish()

    @torch.no_grad()
    def publish(self) -> None:
        fresh, bias = _side_by_side(self._linears, torch.bfloat16)
        if self._weight.shape != fresh.shape:
            self._weight, self._bias = fresh, bias
            return
        # In place: a captured graph goes on reading from here.
        self._weight.copy_(fresh)
        if self._bias is not None and bias is not None:
            self._bias.copy_(bias)

    def release(self) -> None:
        pass

    def __call__(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self._weight, self._bias)


def make_projection(linears: Sequence[Any], *, rounded: bool) -> Product:
    """``rounded``: in bfloat16. Where oneDNN computes, a copy lasts as long as a call; on a GPU it stays, for captured
    graphs read it."""
    if not rounded:
        return Copied(linears, torch.float32) if _blocks_are_faster(linears) else Shared(linears)
    on_cpu = linears[0].weight.device.type == "cpu"
    product = Copied(linears, torch.bfloat16) if on_cpu and onednn_computes_bfloat16() else Rounded(linears)
    return LoraProjection(product, linears) if any(hasattr(linear, "lora_A") for linear in linears) else product


def onednn_computes_bfloat16() -> bool:
    return torch.backends.mkldnn.is_available() and private_torch.onednn_has_bfloat16()


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
    return private_torch.reorder_linear_weight(weight, _FEW_ROWS)


def _blocked_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return private_torch.linear_pointwise(x, weight, bias, "none", [], "")
