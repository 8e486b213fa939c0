"""Attention over segments on a GPU in bfloat16, by PyTorch's FlashAttention.

One call attends within each segment, and a second from completions to their prompts. The results are merged by their
log-sum-exp: softmax over the union of two sets is the average of the softmaxes over each, weighted by their sums. The
backward pass of each call needs only the merged output and its log-sum-exp.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sharpen.models.kernels import private_torch
from sharpen.models.packing.segments import Segments

Two = tuple[Tensor, Tensor]
Three = tuple[Tensor, Tensor, Tensor]


class Spans(NamedTuple):
    """Cumulative sequence lengths for FlashAttention, as int32 from 0: of all segments, and of the second call's
    queries (completions, joined per prompt) and keys (prompts).

    ``completion_N`` and ``prompt_M`` are the positions in the row of those queries and keys. ``longest``, on the CPU,
    holds the greatest lengths in ``own``, ``completions`` and ``prompts``.
    """

    own: Tensor
    completion_N: Tensor
    prompt_M: Tensor
    completions: Tensor
    prompts: Tensor
    longest: Tensor


def fits(device: torch.device, head_dim: int) -> bool:
    """Whether FlashAttention can be used: an NVIDIA GPU, Ampere or later, under autocast to bfloat16."""
    return (
        private_torch.HAS_FLASH_ATTENTION
        and device.type == "cuda"
        and torch.version.cuda is not None
        and torch.is_autocast_enabled("cuda")
        and torch.get_autocast_dtype("cuda") == torch.bfloat16
        and torch.cuda.get_device_capability(device) >= (8, 0)
        and head_dim % 8 == 0
        and head_dim <= 256
    )


def spans_of(segments: Segments) -> Spans:
    return segments.derive("spans", lambda: _spans(segments))


def _spans(segments: Segments) -> Spans:
    members: dict[tuple[int, int], list[Tensor]] = {}
    for segment in segments.segments:
        if segment.prompt_end > segment.prompt:
            members.setdefault((segment.prompt, segment.prompt_end), []).append(
                torch.arange(segment.start, segment.end)
            )
    completions = [torch.cat(parts) for parts in members.values()]
    prompts = [torch.arange(start, end) for start, end in members]
    lengths = [[s.end - s.start for s in segments.segments], [len(a) for a in completions], [len(p) for p in prompts]]
    own, after, before = (_cumulative(of).to(segments.device, non_blocking=True) for of in lengths)
    return Spans(
        own=own,
        completion_N=_joined(completions).to(segments.device, non_blocking=True),
        prompt_M=_joined(prompts).to(segments.device, non_blocking=True),
        completions=after,
        prompts=before,
        longest=torch.tensor([max(of, default=0) for of in lengths]),
    )


def _cumulative(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.long)


def flash_over_segments(query_1HLD: Tensor, key_1hLD: Tensor, value_1hLD: Tensor, spans: Spans, scale: float) -> Tensor:
    """softmax(scale · q kᵀ) v over the tokens each may attend to: [1, H, L, D]. H is a multiple of h, the KV heads."""
    q, k, v = (x[0].transpose(0, 1).to(value_1hLD.dtype).contiguous() for x in (query_1HLD, key_1hLD, value_1hLD))
    output_LHD: Tensor = _flash(q, k, v, *spans, scale)[0]
    return output_LHD.transpose(0, 1)[None]


@torch.library.custom_op("sharpen::flash_over_segments", mutates_args=())
def _flash(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    own: Tensor,
    completion_N: Tensor,
    prompt_M: Tensor,
    completions: Tensor,
    prompts: Tensor,
    longest: Tensor,
    scale: float,
) -> Two:
    """Output [L, H, D] and log-sum-exp of the scores [H, L]; a single opaque operation for the compiler."""
    longest_own, longest_completions, longest_prompt = longest.tolist()
    output, lse = forward(q, k, v, own, own, longest_own, longest_own, True, scale)
    if len(completion_N):
        prompt_output, prompt_lse = forward(
            q[completion_N],
            k[prompt_M],
            v[prompt_M],
            completions,
            prompts,
            longest_completions,
            longest_prompt,
            False,
            scale,
        )
        own_lse = lse[:, completion_N]
        share = torch.sigmoid(prompt_lse - own_lse).t()[..., None].to(output.dtype)
        output[completion_N] = torch.lerp(output[completion_N], prompt_output, share)
        lse[:, completion_N] = torch.logaddexp(own_lse, prompt_lse)
    return output, lse


@_flash.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *spans: Any) -> Two:
    return torch.empty_like(q), q.new_empty((q.shape[1], q.shape[0]), dtype=torch.float32)


@torch.library.custom_op("sharpen::flash_over_segments_backward", mutates_args=())
def _flash_backward(
    grad: Tensor,
    output: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    own: Tensor,
    completion_N: Tensor,
    prompt_M: Tensor,
    completions: Tensor,
    prompts: Tensor,
    longest: Tensor,
    scale: float,
) -> Three:
    longest_own, longest_completions, longest_prompt = longest.tolist()
    grad = grad.contiguous()
    grads = backward(grad, q, k, v, output, lse, own, own, longest_own, longest_own, True, scale)
    if len(completion_N):
        prompt_grads = backward(
            grad[completion_N],
            q[completion_N],
            k[prompt_M],
            v[prompt_M],
            output[completion_N],
            lse[:, completion_N].contiguous(),
            completions,
            prompts,
            longest_completions,
            longest_prompt,
            False,
            scale,
        )
        for whole, part, place in zip(grads, prompt_grads, (completion_N, prompt_M, prompt_M), strict=True):
            whole[place] = whole[place] + part
    return grads


@_flash_backward.register_fake
def _(grad: Tensor, output: Tensor, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, *spans: Any) -> Three:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Two) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*output, *tensors)


def _grads(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return (*_flash_backward(grad, *ctx.saved_tensors, ctx.scale), *(None,) * 7)


_flash.register_autograd(_grads, setup_context=_save)


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_edges: Tensor,
    k_edges: Tensor,
    longest_q: int,
    longest_k: int,
    causal: bool,
    scale: float,
) -> Two:
    """Each sequence of queries attends to its sequence of keys: output [L, H, D] and log-sum-exp [H, L]."""
    output, lse, *_ = private_torch.flash_attention_forward(
        q, k, v, q_edges, k_edges, longest_q, longest_k, 0.0, causal, False, scale=scale
    )
    return output, lse


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    output: Tensor,
    lse: Tensor,
    q_edges: Tensor,
    k_edges: Tensor,
    longest_q: int,
    longest_k: int,
    causal: bool,
    scale: float,
) -> Three:
    """Gradients of queries, keys and values. ``output`` and ``lse`` may be over more keys than these."""
    # The random state of dropout, unused at probability 0.
    seed, offset = torch.zeros(2, dtype=torch.uint64, device=q.device), torch.empty(0, device=q.device)
    grads: Three = private_torch.flash_attention_backward(
        grad,
        q,
        k,
        v,
        output,
        lse,
        q_edges,
        k_edges,
        longest_q,
        longest_k,
        0.0,
        causal,
        seed,
        offset,
        scale=scale,
    )
    return grads
