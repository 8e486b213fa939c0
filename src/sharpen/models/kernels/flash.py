"""Attention over segments on a GPU in bfloat16, by the FlashAttention that PyTorch holds.

Every token attends to its own segment, and those that continue a prompt to that prompt, in a call each. The two
results are put together by their log-sum-exp: softmax over the union of two sets is the mean of the softmaxes over
each, weighted by their sums. Backward, each call needs of the whole no more than the result and its log-sum-exp.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from sharpen.models.packing.segments import Segments

Two = tuple[Tensor, Tensor]
Three = tuple[Tensor, Tensor, Tensor]


class Spans(NamedTuple):
    """Where sequences begin and end, as int32: one more number than sequences.

    ``answer_N`` are the positions of tokens that continue a prompt, prompt by prompt, and ``prompt_M`` those of the
    prompts' tokens. ``longest``, on the CPU: of ``own``, ``answers`` and ``prompts``, their longest sequences.
    """

    own: Tensor
    answer_N: Tensor
    prompt_M: Tensor
    answers: Tensor
    prompts: Tensor
    longest: Tensor


def fits(device: torch.device, head_dim: int) -> bool:
    """A GPU of NVIDIA's since Ampere, and a computation in bfloat16."""
    return (
        device.type == "cuda"
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
    answers = [torch.cat(parts) for parts in members.values()]
    prompts = [torch.arange(start, end) for start, end in members]
    lengths = [[s.end - s.start for s in segments.segments], [len(a) for a in answers], [len(p) for p in prompts]]
    own, after, before = (_edges(of).to(segments.device, non_blocking=True) for of in lengths)
    return Spans(
        own=own,
        answer_N=_joined(answers).to(segments.device, non_blocking=True),
        prompt_M=_joined(prompts).to(segments.device, non_blocking=True),
        answers=after,
        prompts=before,
        longest=torch.tensor([max(of, default=0) for of in lengths]),
    )


def _edges(lengths: list[int]) -> Tensor:
    return torch.tensor([0, *lengths]).cumsum(0).int()


def _joined(parts: list[Tensor]) -> Tensor:
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.long)


def flash_over_segments(query_1HLD: Tensor, key_1hLD: Tensor, value_1hLD: Tensor, spans: Spans, scale: float) -> Tensor:
    """softmax(scale · q kᵀ) v over what each token may see: [1, H, L, D]. H is a multiple of h, the key heads."""
    q, k, v = (x[0].transpose(0, 1).to(value_1hLD.dtype).contiguous() for x in (query_1HLD, key_1hLD, value_1hLD))
    mixed_LHD: Tensor = _flash(q, k, v, *spans, scale)[0]
    return mixed_LHD.transpose(0, 1)[None]


@torch.library.custom_op("sharpen::flash_over_segments", mutates_args=())
def _flash(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    own: Tensor,
    answer_N: Tensor,
    prompt_M: Tensor,
    answers: Tensor,
    prompts: Tensor,
    longest: Tensor,
    scale: float,
) -> Two:
    """What is mixed, [L, H, D], and the log-sum-exp of the scores, [H, L]. For a compiler, one operation."""
    longest_own, longest_answers, longest_prompt = longest.tolist()
    mixed, lse = forward(q, k, v, own, own, longest_own, longest_own, True, scale)
    if len(answer_N):
        shown, shown_lse = forward(
            q[answer_N],
            k[prompt_M],
            v[prompt_M],
            answers,
            prompts,
            longest_answers,
            longest_prompt,
            False,
            scale,
        )
        own_lse = lse[:, answer_N]
        share = torch.sigmoid(shown_lse - own_lse).t()[..., None].to(mixed.dtype)
        mixed[answer_N] = torch.lerp(mixed[answer_N], shown, share)
        lse[:, answer_N] = torch.logaddexp(own_lse, shown_lse)
    return mixed, lse


@_flash.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, *spans: Any) -> Two:
    return torch.empty_like(q), q.new_empty((q.shape[1], q.shape[0]), dtype=torch.float32)


@torch.library.custom_op("sharpen::flash_over_segments_backward", mutates_args=())
def _flash_backward(
    grad: Tensor,
    mixed: Tensor,
    lse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    own: Tensor,
    answer_N: Tensor,
    prompt_M: Tensor,
    answers: Tensor,
    prompts: Tensor,
    longest: Tensor,
    scale: float,
) -> Three:
    longest_own, longest_answers, longest_prompt = longest.tolist()
    grad = grad.contiguous()
    grads = backward(grad, q, k, v, mixed, lse, own, own, longest_own, longest_own, True, scale)
    if len(answer_N):
        shown = backward(
            grad[answer_N],
            q[answer_N],
            k[prompt_M],
            v[prompt_M],
            mixed[answer_N],
            lse[:, answer_N].contiguous(),
            answers,
            prompts,
            longest_answers,
            longest_prompt,
            False,
            scale,
        )
        for whole, part, place in zip(grads, shown, (answer_N, prompt_M, prompt_M), strict=True):
            whole[place] = whole[place] + part
    return grads


@_flash_backward.register_fake
def _(grad: Tensor, mixed: Tensor, lse: Tensor, q: Tensor, k: Tensor, v: Tensor, *spans: Any) -> Three:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Two) -> None:
    *tensors, ctx.scale = inputs
    ctx.save_for_backward(*output, *tensors)


def _grads(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
    return (*_flash_backward(grad, *ctx.saved_tensors, ctx.scale), *(None,) * 7)


_flash.register_autograd(_grads, setup_context=_keep)


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
    """Each sequence of queries on its sequence of keys: what is mixed, [L, H, D], and the log-sum-exp, [H, L]."""
    mixed, lse, *_ = torch.ops.aten._flash_attention_forward(
        q, k, v, q_edges, k_edges, longest_q, longest_k, 0.0, causal, False, scale=scale
    )
    return mixed, lse


def backward(
    grad: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mixed: Tensor,
    lse: Tensor,
    q_edges: Tensor,
    k_edges: Tensor,
    longest_q: int,
    longest_k: int,
    causal: bool,
    scale: float,
) -> Three:
    """The gradients of queries, keys and values. ``mixed`` and ``lse`` may be those over more keys than these."""
    # Of dropout, which there is none of.
    seed, offset = torch.zeros(2, dtype=torch.uint64, device=q.device), torch.empty(0, device=q.device)
    grads: Three = torch.ops.aten._flash_attention_backward(
        grad,
        q,
        k,
        v,
        mixed,
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
