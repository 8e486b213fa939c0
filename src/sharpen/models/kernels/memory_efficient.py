"""RMSNorm and SwiGLU that save less for the backward pass than autograd.

Per token and layer, autograd saves a norm's input twice, its output once for every projection that reads it, and both
steps of silu(gate) · up. Here the norm's input and a single output are saved, and gate and up; the rest is recomputed.
Results equal those of transformers' modules up to rounding.
"""

from __future__ import annotations

import functools
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from sharpen.models.kernels import private_torch


def make_memory_efficient(body: Any) -> None:
    """Replace the RMSNorms before attention and MLP, and MLPs of silu(gate) · up, in a plain architecture's backbone.

    Only the modules' classes change, to subclasses of their own: names and weights do not.
    """
    for layer in body.layers:
        if hasattr(layer, "input_layernorm"):
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                norm.__class__ = _subclass(_MemoryEfficientRMSNorm, norm.__class__)
        if body.config.hidden_act in ("silu", "swish"):
            layer.mlp.__class__ = _subclass(_MemoryEfficientMLP, layer.mlp.__class__)


@functools.cache
def _subclass(efficient: type[nn.Module], own: type[nn.Module]) -> type[nn.Module]:
    return own if issubclass(own, efficient) else type(own.__name__, (efficient, own), {"__module__": __name__})


class _MemoryEfficientRMSNorm(nn.Module):
    weight: nn.Parameter
    variance_epsilon: float

    def forward(self, hidden_states: Tensor) -> Tensor:
        return rms_norm(hidden_states, self.weight, self.variance_epsilon, _matmul_dtype(hidden_states))


class _MemoryEfficientMLP(nn.Module):
    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.down_proj(silu_mul(self.gate_proj(x), self.up_proj(x))))


def _matmul_dtype(x: Tensor) -> torch.dtype:
    """The type that the matrix products reading ``x`` would each cast it to."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def rms_norm(x: Tensor, weight_H: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """w · x / √(mean x² + ε) over the last axis, computed in at least float32, returned in ``dtype``."""
    if not torch.is_grad_enabled():
        return _rms_norm(x, weight_H, eps, dtype)[0]
    return cast(Tensor, _RMSNorm.apply(x, weight_H, eps, dtype))  # type: ignore[no-untyped-call]


def silu_mul(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up, elementwise, with silu(z) = z σ(z)."""
    return cast(Tensor, _SiluMul.apply(gate, up))  # type: ignore[no-untyped-call]


def _rms_norm(x: Tensor, weight_H: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    precise = x.to(torch.promote_types(x.dtype, torch.float32))
    length = torch.linalg.vector_norm(precise, dim=-1, keepdim=True)
    scale = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return (precise * scale).mul_(weight_H).to(dtype), scale


class _RMSNorm(torch.autograd.Function):
    """With n = x r, r = 1 / √(mean x² + ε) and g the output's gradient: dw = Σ g n, dx = r (w g − n mean(w g n))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_H: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        result, scale = _rms_norm(x, weight_H, eps, dtype)
        ctx.save_for_backward(x, weight_H, scale)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight_H, scale = ctx.saved_tensors
        normed = x * scale
        grad = grad.to(normed.dtype)
        grad_weight = grad_x = None
        if ctx.needs_input_grad[1]:
            grad_weight = (grad * normed).flatten(0, -2).sum(dim=0).to(weight_H.dtype)
        if ctx.needs_input_grad[0]:
            weighted = grad * weight_H
            mean = (weighted * normed).mean(dim=-1, keepdim=True)
            grad_x = weighted.sub_(normed.mul_(mean)).mul_(scale).to(x.dtype)
        return grad_x, grad_weight, None, None


class _SiluMul(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return nn.functional.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        grad_up = nn.functional.silu(gate).mul_(grad)
        return private_torch.silu_backward(grad * up, gate), grad_up
