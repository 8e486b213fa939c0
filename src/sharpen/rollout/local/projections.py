"""Linear projections for decoding: one input times several weights, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from sharpen.models.kernels import private_torch
from sharpen.models.kernels.linear import amd_has_onednn
from sharpen.rollout.local.lora_projection import LoraProjection

_ROWS = 64
"""The number of rows that the blocked layout is chosen for."""
_MIN_WEIGHTS = 2**18
"""Below this size, the overhead of calling oneDNN outweighs its gain."""


class Projection(Protocol):
    @property
    def copy_bytes(self) -> int:
        """The size of the copies of weights that it multiplies by, 0 if it multiplies by the weights themselves."""
        ...

    @property
    def keeps_copy(self) -> bool:
        """Whether `release` leaves them."""
        ...

    def __call__(self, x: Tensor) -> Tensor:
        """The results side by side, [N, sum of the output sizes]."""
        ...

    def reload(self) -> None:
        """Load the current weights."""
        ...

    def release(self) -> None:
        """Free copies of the current weights that can be made again."""
        ...


class SharedProjection:
    """Calls the model's own linear layers, one after another."""

    copy_bytes = 0
    keeps_copy = False

    def __init__(self, linears: Sequence[Any]) -> None:
        self._linears = linears

    def __call__(self, x: Tensor) -> Tensor:
        results = [linear(x) for linear in self._linears]
        return torch.cat(results, dim=-1) if len(results) > 1 else results[0]

    def reload(self) -> None:
        pass

    def release(self) -> None:
        pass


class BlockedProjection:
    """Multiplies by a temporary copy of the weights in ``dtype``, one matrix in oneDNN's blocked layout.

    With few rows, reordering a matrix into that layout for every product takes a third of the time or more. The copy is
    made at the first use and released before training, so it never goes stale or takes memory from training.
    """

    keeps_copy = False

    def __init__(self, linears: Sequence[Any], dtype: torch.dtype) -> None:
        self._linears, self._dtype = linears, dtype
        self._copy: tuple[Tensor, Tensor | None] | None = None

    @property
    def copy_bytes(self) -> int:
        return int(sum(linear.weight.numel() for linear in self._linears)) * self._dtype.itemsize

    def __call__(self, x: Tensor) -> Tensor:
        if self._copy is None:
            weight, bias = _concatenated(self._linears, self._dtype)
            self._copy = _blocked(weight), bias
        return _blocked_product(x, *self._copy)

    def reload(self) -> None:
        self.release()

    def release(self) -> None:
        self._copy = None


class RoundedProjection:
    """Multiplies by a copy of the weights in bfloat16, one matrix, rounded as autocast rounds them at every use."""

    keeps_copy = True

    def __init__(self, linears: Sequence[Any]) -> None:
        self._linears = linears
        self._weight = torch.empty(0)
        self._bias: Tensor | None = None
        self.reload()

    @property
    def copy_bytes(self) -> int:
        return self._weight.nbytes

    @torch.no_grad()
    def reload(self) -> None:
        fresh, bias = _concatenated(self._linears, torch.bfloat16)
        if self._weight.shape != fresh.shape:
            self._weight, self._bias = fresh, bias
            return
        # In place: a captured graph keeps reading these tensors.
        self._weight.copy_(fresh)
        if self._bias is not None and bias is not None:
            self._bias.copy_(bias)

    def release(self) -> None:
        pass

    def __call__(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self._weight, self._bias)


def make_projection(linears: Sequence[Any], *, rounded: bool) -> Projection:
    """``rounded``: in bfloat16. With oneDNN a copy lives for one call of the engine; on a GPU it is permanent, because
    captured graphs read it."""
    if not rounded:
        return BlockedProjection(linears, torch.float32) if _blocked_is_faster(linears) else SharedProjection(linears)
    on_cpu = linears[0].weight.device.type == "cpu"
    projection = (
        BlockedProjection(linears, torch.bfloat16)
        if on_cpu and onednn_computes_bfloat16()
        else RoundedProjection(linears)
    )
    return LoraProjection(projection, linears) if any(hasattr(linear, "lora_A") for linear in linears) else projection


def onednn_computes_bfloat16() -> bool:
    return torch.backends.mkldnn.is_available() and private_torch.onednn_has_bfloat16()


def _blocked_is_faster(linears: Sequence[Any]) -> bool:
    """In float32 on AMD processors, MKL's products with few rows reach only a fraction of the memory bandwidth."""
    large = sum(linear.weight.numel() for linear in linears) >= _MIN_WEIGHTS
    return (
        large
        and amd_has_onednn()
        and all(
            isinstance(linear, nn.Linear)
            and linear.weight.device.type == "cpu"
            and linear.weight.dtype == torch.float32
            for linear in linears
        )
    )


def _concatenated(linears: Sequence[Any], dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """The weights as one matrix, the biases as one vector."""
    weight = torch.cat([linear.weight.detach().to(dtype) for linear in linears])
    biases = [linear.bias.detach().to(dtype) for linear in linears if linear.bias is not None]
    return weight, torch.cat(biases) if biases else None


def _blocked(weight: Tensor) -> Tensor:
    return private_torch.reorder_linear_weight(weight, _ROWS)


def _blocked_product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return private_torch.linear_pointwise(x, weight, bias, "none", [], "")
