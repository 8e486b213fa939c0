"""Log-probabilities of completion tokens, with the language-model head applied only where one is needed.

No [tokens × vocabulary] tensor of a whole batch ever exists: the head runs over chunks of positions, and the
backward pass computes each chunk's logits anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sharpen.models.layout import Cost, Row, build
from sharpen.models.policy import Policy
from sharpen.types import Batch

CHUNK_BYTES = 128 * 2**20
"""Size of the float32 logits that exist at a time."""


def row_logprobs(policy: Policy, batch: Batch, rows: Sequence[Row], temperature: float) -> tuple[Tensor, Tensor]:
    """log π of the trained tokens of ``rows`` and the entropy of π there, both [B, T] and 0 elsewhere, in nats.

    Both are of the distribution that is sampled from: logits / temperature.
    """
    packed = build(batch, rows, policy.pad_id).to(policy.device)
    with policy.autocast():
        if policy.plain:
            hidden_RLH = policy.model.get_decoder()(  # type: ignore[operator]
                input_ids=packed.input_ids_RL,
                position_ids=packed.position_ids_RL,
                attention_mask=packed.mask_R1LL,
                use_cache=False,
            ).last_hidden_state
            hidden_NH = hidden_RLH.flatten(0, 1)[packed.source_N]
            dtype = torch.bfloat16 if policy.compute_dtype == "bfloat16" else torch.float32
            weight_VH = policy.model.get_output_embeddings().weight  # type: ignore[operator]
            logprobs_N, entropy_N = selected_logprobs(hidden_NH, weight_VH, packed.target_N, temperature, dtype)
        else:
            logits_RLV = policy.model(
                input_ids=packed.input_ids_RL, position_ids=packed.position_ids_RL, use_cache=False
            ).logits
            logprobs_NV = logits_RLV.flatten(0, 1)[packed.source_N].float().div(temperature).log_softmax(dim=-1)
            logprobs_N = logprobs_NV.gather(1, packed.target_N[:, None]).squeeze(1)
            entropy_N = -(logprobs_NV.detach().exp() * logprobs_NV.detach()).sum(dim=1)
    empty_BT = torch.zeros(batch.tokens_BT.shape, dtype=logprobs_N.dtype, device=policy.device)
    index = (packed.b_N, packed.t_N)
    return empty_BT.index_put(index, logprobs_N), empty_BT.index_put(index, entropy_N)


def selected_logprobs(
    hidden_NH: Tensor,
    weight_VH: Tensor,
    targets_N: Tensor,
    temperature: float,
    dtype: torch.dtype = torch.float32,
    chunk_bytes: int = CHUNK_BYTES,
) -> tuple[Tensor, Tensor]:
    """log softmax(h Wᵀ / temperature) at the targets, [N], and the entropy of that softmax, [N], without gradient.

    ``dtype`` is that of the matrix products; the softmax is in at least float32.
    """
    chunk = max(1, chunk_bytes // (4 * weight_VH.shape[0]))
    result: tuple[Tensor, Tensor] = _SelectedLogprobs.apply(  # type: ignore[no-untyped-call]
        hidden_NH, weight_VH, targets_N, temperature, dtype, chunk
    )
    return result


class _SelectedLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        targets_N: Tensor,
        temperature: float,
        dtype: torch.dtype,
        chunk: int,
    ) -> tuple[Tensor, Tensor]:
        precise = torch.promote_types(hidden_NH.dtype, torch.float32)
        dtype = torch.promote_types(dtype, precise) if dtype == torch.float32 else dtype
        logprobs_N = hidden_NH.new_empty(len(targets_N), dtype=precise)
        entropy_N, logsumexp_N = torch.empty_like(logprobs_N), torch.empty_like(logprobs_N)
        with torch.autocast(hidden_NH.device.type, enabled=False):
            weight = weight_VH.to(dtype)
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
        ctx.save_for_backward(hidden_NH, weight_VH, targets_N, logsumexp_N)
        ctx.settings = (temperature, dtype, chunk, precise)
        ctx.mark_non_differentiable(entropy_N)
        return logprobs_N, entropy_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        hidden_NH, weight_VH, targets_N, logsumexp_N = ctx.saved_tensors
        temperature, dtype, chunk, precise = ctx.settings
        grad_N = grads[0]
        grad_hidden_NH = torch.empty_like(hidden_NH) if ctx.needs_input_grad[0] else None
        grad_weight_VH = torch.zeros_like(weight_VH) if ctx.needs_input_grad[1] else None
        with torch.autocast(hidden_NH.device.type, enabled=False):
            weight = weight_VH.to(dtype)
            for start in range(0, len(targets_N), chunk):
                part = slice(start, start + chunk)
                hidden = hidden_NH[part].to(dtype)
                # d log p(target) / d logits = (one-hot − p) / temperature
                d_logits = _logits(hidden, weight, temperature, precise)
                d_logits -= logsumexp_N[part, None]
                d_logits.exp_().mul_(-grad_N[part, None])
                d_logits.scatter_add_(1, targets_N[part, None], grad_N[part, None].to(precise))
                d_logits = (d_logits / temperature).to(dtype)
                if grad_hidden_NH is not None:
                    grad_hidden_NH[part] = d_logits @ weight
                if grad_weight_VH is not None:
                    grad_weight_VH += d_logits.T @ hidden
        return grad_hidden_NH, grad_weight_VH, None, None, None, None


def _logits(hidden: Tensor, weight: Tensor, temperature: float, precise: torch.dtype) -> Tensor:
    logits = (hidden @ weight.T).to(precise)
    return logits if temperature == 1.0 else logits.div_(temperature)


def training_cost(policy: Policy) -> Cost:
    """Operations of the model's body per token and per attended pair, forward and backward (6 per weight)."""
    embeddings = policy.model.get_input_embeddings().weight  # type: ignore[operator]
    head = policy.model.get_output_embeddings().weight  # type: ignore[operator]
    tables = embeddings.numel() + (0 if head is embeddings else head.numel())
    body = sum(p.numel() for p in policy.model.parameters()) - tables
    config = policy.config.get_text_config()
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Cost(
        per_token=6.0 * body,
        per_pair=12.0 * config.num_hidden_layers * config.num_attention_heads * head_dim,
    )
