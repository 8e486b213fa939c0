"""Float32 matrix products through oneDNN on CPUs where PyTorch's default, MKL, is slow.

On AMD processors MKL only uses AVX2; oneDNN uses AVX-512 and is about twice as fast. The choice depends only on the
machine and the shape, never on a timing, so a run repeats bit for bit.
"""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sharpen.models.kernels import private_torch

LEAST_OPERATIONS = 8e6
"""With fewer FLOPs, oneDNN's overhead of 20 µs per call exceeds what it saves."""


class Linear(nn.Linear):
    """nn.Linear with its three matrix products through oneDNN; falls back to nn.Linear where oneDNN is not used."""

    def forward(self, input: Tensor) -> Tensor:
        rows = input.numel() // max(1, self.in_features)
        if torch.is_autocast_enabled(input.device.type) or not suits(input, self.weight, rows):
            return nn.Linear.forward(self, input)
        result: Tensor = _Linear.apply(input, self.weight, self.bias)  # type: ignore[no-untyped-call]
        return result


def switch_linears(model: nn.Module) -> None:
    """Turn every nn.Linear of ``model`` into a `Linear` where that is faster. Names and weights do not change."""
    if onednn_is_faster():
        for module in model.modules():
            if type(module) is nn.Linear:
                module.__class__ = Linear


@functools.cache
def onednn_is_faster() -> bool:
    """True on an AMD processor with AVX-512, if PyTorch has both libraries."""
    return amd_has_onednn() and torch.backends.cpu.get_cpu_capability().startswith("AVX512")


@functools.cache
def amd_has_onednn() -> bool:
    """True on an AMD processor, if PyTorch has both MKL, its default, and oneDNN."""
    return (
        torch.backends.mkl.is_available()
        and torch.backends.mkldnn.is_available()
        and private_torch.HAS_ONEDNN_LINEAR
        and _vendor() == "AuthenticAMD"
    )


def suits(a: Tensor, b: Tensor, rows: int) -> bool:
    """Whether oneDNN computes a @ bᵀ for ``a`` of so many rows: float32, on a CPU where it is faster, not tiny."""
    return (
        a.dtype == b.dtype == torch.float32
        and a.device.type == b.device.type == "cpu"
        and 2.0 * rows * b.numel() > LEAST_OPERATIONS
        and onednn_is_faster()
    )


def product(a_NK: Tensor, b_MK: Tensor, bias_M: Tensor | None = None) -> Tensor:
    """a @ bᵀ + bias, without autograd: [N, M]. Both may be transposed views."""
    if suits(a_NK, b_MK, a_NK.shape[0]):
        return private_torch.linear_pointwise(a_NK, b_MK, bias_M, "none", [], "")
    return nn.functional.linear(a_NK, b_MK, bias_M)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(input, weight)
        result = product(input.reshape(-1, weight.shape[1]), weight, bias)
        return result.view(*input.shape[:-1], weight.shape[0])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        grad_NM, input_NK = grad.reshape(-1, weight.shape[0]), input.reshape(-1, weight.shape[1])
        grad_input = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_input = product(grad_NM, weight.t()).view(input.shape)
        if ctx.needs_input_grad[1]:
            grad_weight = outer(grad_NM, input_NK)
        if ctx.needs_input_grad[2]:
            grad_bias = grad_NM.sum(dim=0)
        return grad_input, grad_weight, grad_bias


def outer(grad_NM: Tensor, input_NK: Tensor) -> Tensor:
    """gradᵀ @ input: the gradient of a weight, [M, K]."""
    if grad_NM.shape[1] > 2 * input_NK.shape[1] and onednn_is_faster():
        # oneDNN is faster with few rows, by more than the transposed result costs.
        return product(input_NK.t(), grad_NM.t()).t()
    return product(grad_NM.t(), input_NK.t())


@functools.cache
def _vendor() -> str:
    """The processor's vendor id, empty where the system does not give it."""
    if platform.system() == "Windows":
        return platform.processor().rpartition(", ")[2]
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        return ""
    for line in cpuinfo.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "vendor_id":
            return value.strip()
    return ""
