"""Attention over segments from two FlashAttention calls, with slow calls in their place, against plain loops."""

from collections.abc import Iterator
from itertools import pairwise

import pytest
import torch
from test_attention import ROWS, by_loops, problem, row, values_and_gradients
from torch import Tensor

from sharpen.models.kernels import flash
from sharpen.models.kernels.flash import flash_over_segments, spans_of
from sharpen.models.packing.segments import Segments


def sequences(q_edges: Tensor, k_edges: Tensor) -> Iterator[tuple[slice, slice]]:
    for (q, q_end), (k, k_end) in zip(pairwise(q_edges.tolist()), pairwise(k_edges.tolist()), strict=True):
        yield slice(q, q_end), slice(k, k_end)


def scores(q: Tensor, k: Tensor, causal: bool, scale: float) -> Tensor:
    """[H, queries, keys], a KV head for several query heads."""
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    s = torch.einsum("qhd,khd->hqk", q, k) * scale
    return s + torch.full(s.shape[1:], -torch.inf).triu(1) if causal else s


def forward(q, k, v, q_edges, k_edges, longest_q, longest_k, causal, scale):  # type: ignore[no-untyped-def]
    mixed, lse = torch.empty_like(q), q.new_empty(q.shape[1], len(q))
    for at, seen in sequences(q_edges, k_edges):
        assert at.stop - at.start <= longest_q
        assert seen.stop - seen.start <= longest_k
        s = scores(q[at], k[seen], causal, scale)
        lse[:, at] = s.logsumexp(dim=-1)
        wide = v[seen].repeat_interleave(q.shape[1] // v.shape[1], dim=1)
        mixed[at] = torch.einsum("hqk,khd->qhd", s.softmax(dim=-1), wide)
    return mixed, lse


def backward(grad, q, k, v, mixed, lse, q_edges, k_edges, longest_q, longest_k, causal, scale):  # type: ignore[no-untyped-def]
    """P = exp(S − lse); dV = Pᵀ dO, dS = P ∘ (dO Vᵀ − rowsum(dO ∘ O)), as FlashAttention computes them."""
    grads = [torch.zeros_like(x) for x in (q, k, v)]
    share = q.shape[1] // k.shape[1]
    for at, seen in sequences(q_edges, k_edges):
        p = (scores(q[at], k[seen], causal, scale) - lse[:, at, None]).exp()
        wide_k, wide_v = (x[seen].repeat_interleave(share, dim=1) for x in (k, v))
        grad_p = torch.einsum("qhd,khd->hqk", grad[at], wide_v)
        grad_s = p * (grad_p - (grad[at] * mixed[at]).sum(dim=-1).t()[..., None]) * scale
        grads[0][at] += torch.einsum("hqk,khd->qhd", grad_s, wide_k)
        grads[1][seen] += torch.einsum("hqk,qhd->khd", grad_s, q[at]).unflatten(1, (-1, share)).sum(dim=2)
        grads[2][seen] += torch.einsum("hqk,qhd->khd", p, grad[at]).unflatten(1, (-1, share)).sum(dim=2)
    return tuple(grads)


@pytest.mark.parametrize("heads", [(2, 2), (6, 2)])
@pytest.mark.parametrize("name", ROWS)
def test_values_and_gradients_are_those_of_plain_loops(
    name: str, heads: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flash, "forward", forward)
    monkeypatch.setattr(flash, "backward", backward)

    def by_flash(query: Tensor, key: Tensor, value: Tensor, segments: Segments, scale: float) -> Tensor:
        return flash_over_segments(query, key, value, spans_of(segments), scale)

    segments = row(name)
    tensors = problem(segments.length, *heads)
    expected = values_and_gradients(by_loops, segments, tensors, 0.7)
    for found, wanted in zip(values_and_gradients(by_flash, segments, tensors, 0.7), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-10)
