"""Norms and gated products of a transformer layer that keep less for the backward pass than autograd would.

Of a token and layer, autograd keeps a norm's input twice, its output once for every product that reads it, and both
steps of silu(gate) · up. Here a norm's input and one output are kept, and the gate with its factor; the rest is
computed again. The results are those of transformers' own modules, to rounding.
"""

from __future__ import annotations

import functools
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def make_memory_efficient(body: Any) -> None:
    """Switch the layers of a plain architecture's body to these forms where they have them: RMS norms that stand
    before attention and MLP, and silu(gate) · up. Names, weights and isinstance stay as they are."""
    for layer in body.layers:
        if hasattr(layer, "input_layernorm"):
            for norm in (layer.input_layernorm, layer.post_attention_layernorm):
                norm.__class__ = _subclass(_EfficientNorm, norm.__class__)
        if body.config.hidden_act in ("silu", "swish"):
            layer.mlp.__class__ = _subclass(_EfficientMlp, layer.mlp.__class__)


@functools.cache
def _subclass(form: type[nn.Module], of: type[nn.Module]) -> type[nn.Module]:
    return of if issubclass(of, form) else type(of.__name__, (form, of), {"__module__": __name__})


class _EfficientNorm(nn.Module):
    weight: nn.Parameter
    variance_epsilon: float

    def forward(self, hidden_states: Tensor) -> Tensor:
        return rms_norm(hidden_states, self.weight, self.variance_epsilon, _product_dtype(hidden_states))


class _EfficientMlp(nn.Module):
    gate_proj: nn.Module
    up_proj: nn.Module
    down_proj: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.down_proj(silu_times(self.gate_proj(x), self.up_proj(x))))


def _product_dtype(x: Tensor) -> torch.dtype:
    """The type to which the products that read ``x`` would round it, each for itself."""
    kind = x.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def rms_norm(x: Tensor, weight_H: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """w · x / √(mean x² + ε) over the last axis, computed in at least float32 and given in ``dtype``."""
    if not torch.is_grad_enabled():
        return _normed(x, weight_H, eps, dtype)[0]
    return cast(Tensor, _RmsNorm.apply(x, weight_H, eps, dtype))  # type: ignore[no-untyped-call]


def silu_times(gate: Tensor, up: Tensor) -> Tensor:
    """silu(gate) · up, elementwise, with silu(z) = z σ(z)."""
    return cast(Tensor, _SiluTimes.apply(gate, up))  # type: ignore[no-untyped-call]


def _normed(x: Tensor, weight_H: Tensor, eps: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    precise = x.to(torch.promote_types(x.dtype, torch.float32))
    length = torch.linalg.vector_norm(precise, dim=-1, keepdim=True)
    scale = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
    return (precise * scale).mul_(weight_H).to(dtype), scale


class _RmsNorm(torch.autograd.Function):
    """With n = x r, r = 1 / √(mean x² + ε) and g the result's gradient: dw = Σ g n, dx = r (w g − n mean(w g n))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_H: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        result, scale = _normed(x, weight_H, eps, dtype)
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


class _SiluTimes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return nn.functional.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        gate, up = ctx.saved_tensors
        grad_up = nn.functional.silu(gate).mul_(grad)
        grad_gate: Tensor = torch.ops.aten.silu_backward(grad * up, gate)
        return grad_gate, grad_up
