"""The language model's head when only log π(token) needs a gradient, as in most methods."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sharpen.models.kernels.compiled import on_gpu
from sharpen.models.kernels.linear import outer, product

BLOCK_BYTES = 4 * 2**20
"""Size of a block of logits, small enough for the CPU's cache."""


class TokenLogprobs(torch.autograd.Function):
    """log π(target) and, without a gradient, H(π), each [N], for π = softmax(h Wᵀ / temperature).

    With logits z and target t, let s = Σ exp(z − max z) and E = exp(z − max z) with 0 at t. The gradient of log π(t),
    times the temperature, is (1 − π(t)) at t and −E / s elsewhere, so the backward pass only needs E, in the type of
    the matrix products. Forward saves it for the first ``saved`` rows; the others are recomputed chunk by chunk.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        targets_N: Tensor,
        temperature: float,
        dtype: torch.dtype,
        chunk: int,
        saved: int,
    ) -> tuple[Tensor, Tensor]:
        precise = torch.promote_types(hidden_NH.dtype, torch.float32)
        logprobs_N = hidden_NH.new_empty(len(targets_N), dtype=precise)
        entropy_N, logsum_N = torch.empty_like(logprobs_N), torch.empty_like(logprobs_N)
        parts: list[Tensor] = []
        with torch.autocast(hidden_NH.device.type, enabled=False):
            weight = weight_VH.to(dtype)
            for part in _chunks(len(targets_N), chunk, saved):
                exps_NV = product(hidden_NH[part].to(dtype), weight)
                logprobs_N[part], entropy_N[part], logsum_N[part] = _exponentiate(exps_NV, targets_N[part], temperature)
                if part.stop <= saved:
                    parts.append(exps_NV)
        ctx.save_for_backward(hidden_NH, weight_VH, targets_N, logprobs_N, logsum_N, *parts)
        ctx.settings = temperature, dtype, chunk, saved
        ctx.mark_non_differentiable(entropy_N)
        return logprobs_N, entropy_N

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_N: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        hidden_NH, weight_VH, targets_N, logprobs_N, logsum_N, *parts = ctx.saved_tensors
        temperature, dtype, chunk, saved = ctx.settings
        at_target_N1 = (-torch.expm1(logprobs_N) * grad_N / temperature)[:, None]
        elsewhere_N1 = (-torch.exp(-logsum_N) * grad_N / temperature)[:, None]
        grad_hidden_NH = torch.empty_like(hidden_NH) if ctx.needs_input_grad[0] else None
        grad_weight_VH: Tensor | None = None
        with torch.autocast(hidden_NH.device.type, enabled=False):
            weight = weight_VH.to(dtype)
            for part in _chunks(len(targets_N), chunk, saved):
                hidden = hidden_NH[part]
                if part.stop <= saved:
                    exps_NV = parts.pop(0)
                else:
                    exps_NV = product(hidden.to(dtype), weight)
                    _exponentiate(exps_NV, targets_N[part], temperature)
                if grad_hidden_NH is not None:
                    grad = product(exps_NV, weight.t()) * elsewhere_N1[part]
                    grad_hidden_NH[part] = grad.addcmul_(weight_VH[targets_N[part]], at_target_N1[part])
                if ctx.needs_input_grad[1]:
                    grad = outer(exps_NV, (hidden * elsewhere_N1[part]).to(dtype)).to(weight_VH.dtype)
                    grad_weight_VH = grad if grad_weight_VH is None else grad_weight_VH.add_(grad)
            if grad_weight_VH is not None:
                grad_weight_VH.index_add_(0, targets_N, (hidden_NH * at_target_N1).to(weight_VH.dtype))
        return grad_hidden_NH, grad_weight_VH, None, None, None, None, None


def _chunks(rows: int, chunk: int, saved: int) -> list[slice]:
    """Slices of at most ``chunk`` rows, each either all saved or all recomputed."""
    starts = sorted({*range(0, min(saved, rows), chunk), *range(min(saved, rows), rows, chunk)})
    return [slice(start, end) for start, end in zip(starts, [*starts[1:], rows], strict=True)]


def _exponentiate(logits_NV: Tensor, targets_N: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """log π(target), H(π) and log Σ exp(z − max z). Overwrites the logits with exp(z − max z), 0 at the target."""
    targets_N1 = targets_N[:, None]
    if logits_NV.device.type == "cuda":
        found: tuple[Tensor, Tensor, Tensor] = on_gpu(_block, logits_NV.device)(logits_NV, targets_N1, temperature)
        return found
    precise = torch.promote_types(logits_NV.dtype, torch.float32)
    rows = max(1, BLOCK_BYTES // (logits_NV.shape[1] * precise.itemsize))
    parts = zip(logits_NV.split(rows), targets_N1.split(rows), strict=True)
    blocks = [_block(logits, targets, temperature) for logits, targets in parts]
    logprobs_N, entropy_N, logsum_N = (torch.cat(column) for column in zip(*blocks, strict=True))
    return logprobs_N, entropy_N, logsum_N


def _block(logits_NV: Tensor, targets_N1: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    z = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    if temperature != 1.0:
        z = z.div_(temperature)
    z -= z.amax(dim=1, keepdim=True)
    exps = z.exp()
    total = exps.sum(dim=1)
    logsum = total.log()
    logprobs = z.gather(1, targets_N1).squeeze(1) - logsum
    mean = z.mul_(exps).sum(dim=1) / total
    logits_NV.copy_(exps.scatter_(1, targets_N1, 0.0))
    return logprobs, logsum - mean, logsum
