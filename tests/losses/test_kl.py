import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles import grpo
from sharpen.losses.kl import k3


def categorical(seed, vocabulary=6):
    generator = torch.Generator().manual_seed(seed)
    logits = 1.5 * torch.randn(vocabulary, dtype=torch.float64, generator=generator)
    reference = 1.5 * torch.randn(vocabulary, dtype=torch.float64, generator=generator)
    return logits.requires_grad_(), reference.log_softmax(-1)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.floats(-12, 0), st.floats(-12, 0)), min_size=1, max_size=8))
def test_value_and_gradient_against_the_plain_formula(pairs):
    logprobs = torch.tensor([[p for p, _ in pairs]], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([[q for _, q in pairs]], dtype=torch.float64)
    kl = k3(logprobs, reference)
    kl.sum().backward()
    expected = torch.tensor([[grpo.k3(p, q) for p, q in pairs]], dtype=torch.float64)
    torch.testing.assert_close(kl.detach(), expected, rtol=1e-6, atol=1e-12)
    slope = torch.tensor([[1 - math.exp(q - p) for p, q in pairs]], dtype=torch.float64)
    torch.testing.assert_close(logprobs.grad, slope, rtol=1e-6, atol=1e-12)


def test_never_negative_and_zero_only_where_the_policies_agree():
    difference = torch.linspace(-20, 20, 4001, dtype=torch.float64)
    kl = k3(torch.full_like(difference, -30.0), difference - 30.0)
    assert (kl >= 0).all()
    assert (kl[difference.abs() > 1e-3] > 0).all()
    agreeing = torch.tensor([[-0.1, -7.0, -300.0]])
    assert torch.equal(k3(agreeing, agreeing), torch.zeros(1, 3))


@pytest.mark.parametrize("seed", range(5))
def test_its_mean_is_the_kl(seed):
    logits, reference = categorical(seed)
    logprobs = logits.log_softmax(-1)
    mean = (logprobs.exp() * k3(logprobs, reference)).sum()
    kl = sum(p.exp().item() * (p - q).item() for p, q in zip(logprobs, reference, strict=True))
    assert mean.item() == pytest.approx(kl, rel=1e-9)


@pytest.mark.parametrize("seed", range(5))
def test_its_expected_gradient_is_that_of_the_forward_kl(seed):
    logits, reference = categorical(seed)
    logprobs = logits.log_softmax(-1)
    loss = (logprobs.exp().detach() * k3(logprobs, reference)).sum()
    (gradient,) = torch.autograd.grad(loss, logits)
    # ∇ KL(π_ref‖π) with respect to the logits is π − π_ref.
    forward = logits.detach().softmax(-1) - reference.exp()
    torch.testing.assert_close(gradient, forward, rtol=1e-9, atol=1e-12)
    logprobs = logits.log_softmax(-1)
    (reverse,) = torch.autograd.grad((logprobs.exp() * (logprobs - reference)).sum(), logits)
    assert (gradient - reverse).abs().max() > 1e-2
