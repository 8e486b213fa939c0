"""Log-probabilities, entropies and KL divergences of tokens from hidden states, with the head applied in chunks.

The [tokens × vocabulary] logits of a whole batch never exist: the head runs over chunks of positions. The forward pass
saves one chunk for the backward pass, which recomputes the others.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sharpen.models.head import TokenLogprobs

CHUNK_BYTES = 128 * 2**20
"""Size of a chunk of one model's logits, and of what is saved of them for the backward pass."""
GPU_CHUNK_BYTES = 2**30
"""The same on a GPU, where each chunk reads and writes the gradient of the whole head once."""


class Selected(NamedTuple):
    """log π of N tokens, the entropy of π at each and, with a reference, KL(π ‖ π_ref) at each. In nats."""

    logprobs_N: Tensor
    entropy_N: Tensor
    kl_N: Tensor | None


def selected_logprobs(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    targets_N: Tensor,
    temperature: float,
    dtype: torch.dtype = torch.float32,
    *,
    entropy_gradient: bool = False,
    reference: tuple[Tensor, Callable[[Tensor], Tensor]] | None = None,
    chunk_bytes: int | None = None,
) -> Selected:
    """π = softmax(h Wᵀ / temperature): log π(target), H(π), and KL(π ‖ π_ref) = Σ_v π log(π / π_ref), each [N].

    With z the logits, ∂log π(target)/∂z = (one-hot − π) / temperature, ∂H/∂z = −π (log π + H) / temperature and
    ∂KL/∂z = π (log π − log π_ref − KL) / temperature. The entropy has a gradient only with
    ``entropy_gradient``. ``reference`` holds the hidden states [N, H'] of π_ref and its head, which gives the logits
    [n, V] of some of them; it is called once per chunk in the forward and in the backward pass, and gets no gradient.
    ``dtype`` is the type of the matrix products; the softmax is in at least float32.
    """
    if chunk_bytes is None:
        chunk_bytes = CHUNK_BYTES if hidden_NH.device.type == "cpu" else GPU_CHUNK_BYTES
    if reference is None and not entropy_gradient:
        precise = torch.promote_types(hidden_NH.dtype, torch.float32)
        dtype = torch.promote_types(dtype, precise) if dtype == torch.float32 else dtype
        rows = max(1, chunk_bytes // (dtype.itemsize * weight_VH.shape[0]))
        saved = rows if torch.is_grad_enabled() else 0
        plain: tuple[Tensor, Tensor] = TokenLogprobs.apply(  # type: ignore[no-untyped-call]
            hidden_NH, weight_VH, targets_N, temperature, dtype, rows, saved
        )
        return Selected(*plain, None)
    ref_hidden_NH, ref_head = (None, None) if reference is None else reference
    chunk = max(1, chunk_bytes // (4 * weight_VH.shape[0]))
    result: tuple[Tensor, Tensor, Tensor | None] = _SelectedLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden_NH, weight_VH, targets_N, ref_hidden_NH, ref_head, temperature, dtype, chunk, entropy_gradient
    )
    return Selected(*result)


def full_logprobs(
    logits_NV: Tensor,
    targets_N: Tensor,
    temperature: float,
    *,
    entropy_gradient: bool = False,
    reference_NV: Tensor | None = None,
) -> Selected:
    """The same from given logits, for models that use their own forward."""
    logprobs_NV = _precise(logits_NV).div(temperature).log_softmax(dim=-1)
    # FSDP2 warns of a view as a result of a module.
    chosen_N = logprobs_NV.gather(1, targets_N[:, None]).squeeze(1).clone()
    for_entropy_NV = logprobs_NV if entropy_gradient else logprobs_NV.detach()
    entropy_N = -(for_entropy_NV.exp() * for_entropy_NV).sum(dim=1)
    if reference_NV is None:
        return Selected(chosen_N, entropy_N, None)
    ref_logprobs_NV = _precise(reference_NV.detach()).div(temperature).log_softmax(dim=-1)
    return Selected(chosen_N, entropy_N, (logprobs_NV.exp() * (logprobs_NV - ref_logprobs_NV)).sum(dim=1))


class _SelectedLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        targets_N: Tensor,
        ref_hidden_NH: Tensor | None,
        ref_head: Callable[[Tensor], Tensor] | None,
        temperature: float,
        dtype: torch.dtype,
        chunk: int,
        entropy_gradient: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        precise = torch.promote_types(hidden_NH.dtype, torch.float32)
        dtype = torch.promote_types(dtype, precise) if dtype == torch.float32 else dtype
        logprobs_N = hidden_NH.new_empty(len(targets_N), dtype=precise)
        entropy_N, logsumexp_N = torch.empty_like(logprobs_N), torch.empty_like(logprobs_N)
        kl_N = ref_logsumexp_N = None
        with torch.autocast(hidden_NH.device.type, enabled=False):
            weight = weight_VH.to(dtype)
            if ref_head is not None:
                kl_N, ref_logsumexp_N = torch.empty_like(logprobs_N), torch.empty_like(logprobs_N)
            for start in range(0, len(targets_N), chunk):
                part = slice(start, start + chunk)
                logits = _logits(hidden_NH[part].to(dtype), weight, temperature, precise)
                highest = logits.amax(dim=1, keepdim=True)
                logits -= highest
                chosen = logits.gather(1, targets_N[part, None]).squeeze(1)
                unnormalised = logits.exp()
                total = unnormalised.sum(dim=1)
                logprobs_N[part] = chosen - total.log()
                entropy_N[part] = total.log() - torch.linalg.vecdot(unnormalised, logits) / total
                logsumexp_N[part] = total.log() + highest.squeeze(1)
                if kl_N is None or ref_hidden_NH is None or ref_head is None or ref_logsumexp_N is None:
                    continue
                ref_logits = _softened(ref_head(ref_hidden_NH[part]), temperature, precise)
                ref_logsumexp_N[part] = ref_logits.logsumexp(dim=1)
                ref_logits -= ref_logsumexp_N[part, None]
                logits -= total.log()[:, None]
                kl_N[part] = torch.linalg.vecdot(unnormalised, logits.sub_(ref_logits)) / total
        ctx.save_for_backward(
            hidden_NH, weight_VH, targets_N, logsumexp_N, entropy_N, ref_hidden_NH, ref_logsumexp_N, kl_N
        )
        ctx.settings = (temperature, dtype, chunk, precise, ref_head)
        ctx.set_materialize_grads(False)
        if not entropy_gradient:
            ctx.mark_non_differentiable(entropy_N)
        return logprobs_N, entropy_N, kl_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden_NH, weight_VH, targets_N, logsumexp_N, entropy_N, ref_hidden_NH, ref_logsumexp_N, kl_N = (
            ctx.saved_tensors
        )
        temperature, dtype, chunk, precise, ref_head = ctx.settings
        g_logprobs_N, g_entropy_N, g_kl_N = grads
        # With a, b, c the upstream gradients of log π, H and KL, the gradient of the logits (× temperature) is
        #     a one-hot + π ((c − b) log π − c log π_ref − (a + b H + c KL))
        slope_N = torch.zeros_like(logsumexp_N)
        level_N = torch.zeros_like(logsumexp_N)
        if g_logprobs_N is not None:
            level_N -= g_logprobs_N
        if g_entropy_N is not None:
            slope_N -= g_entropy_N
            level_N -= g_entropy_N * entropy_N
        if g_kl_N is not None:
            slope_N += g_kl_N
            level_N -= g_kl_N * kl_N
        grad_hidden_NH = torch.empty_like(hidden_NH) if ctx.needs_input_grad[0] else None
        grad_weight_VH = torch.zeros_like(weight_VH) if ctx.needs_input_grad[1] else None
        with torch.autocast(hidden_NH.device.type, enabled=False):
            weight = weight_VH.to(dtype)
            for start in range(0, len(targets_N), chunk):
                part = slice(start, start + chunk)
                hidden = hidden_NH[part].to(dtype)
                d_logits = _logits(hidden, weight, temperature, precise)
                d_logits -= logsumexp_N[part, None]
                if g_entropy_N is None and g_kl_N is None:
                    d_logits.exp_().mul_(level_N[part, None])
                else:
                    factor = torch.addcmul(level_N[part, None], slope_N[part, None], d_logits)
                    if g_kl_N is not None:
                        ref_logits = _softened(ref_head(ref_hidden_NH[part]), temperature, precise)
                        ref_logits -= ref_logsumexp_N[part, None]
                        factor -= ref_logits.mul_(g_kl_N[part, None])
                    d_logits.exp_().mul_(factor)
                if g_logprobs_N is not None:
                    d_logits.scatter_add_(1, targets_N[part, None], g_logprobs_N[part, None].to(precise))
                d_logits = (d_logits / temperature).to(dtype)
                if grad_hidden_NH is not None:
                    grad_hidden_NH[part] = d_logits @ weight
                if grad_weight_VH is not None:
                    grad_weight_VH += d_logits.T @ hidden
        return grad_hidden_NH, grad_weight_VH, None, None, None, None, None, None, None


def _logits(hidden: Tensor, weight: Tensor, temperature: float, precise: torch.dtype) -> Tensor:
    return _softened(hidden @ weight.T, temperature, precise)


def _softened(logits: Tensor, temperature: float, precise: torch.dtype) -> Tensor:
    """logits / temperature. The logits are the caller's own: they may be overwritten."""
    logits = logits.to(precise)
    return logits if temperature == 1.0 else logits.div_(temperature)


def _precise(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
