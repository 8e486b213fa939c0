import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles import grpo, scalars
from oracles import kl as oracle
from oracles.ragged import ragged
from sharpen.functional.losses import kl

ESTIMATORS = {
    "k1": (lambda lp, old, ref: kl.k1(lp, ref), lambda lp, old, ref: oracle.k1(lp, ref)),
    "k2": (lambda lp, old, ref: kl.k2(lp, ref), lambda lp, old, ref: oracle.k2(lp, ref)),
    "k3": (lambda lp, old, ref: kl.k3(lp, ref), lambda lp, old, ref: oracle.k3(lp, ref)),
    "weighted_k3": (kl.weighted_k3, oracle.weighted_k3),
}


def categorical(seed, vocabulary=6):
    """Logits with gradient, and the log-probabilities of a reference and of an old policy."""
    generator = torch.Generator().manual_seed(seed)
    draws = [1.5 * torch.randn(vocabulary, dtype=torch.float64, generator=generator) for _ in range(3)]
    return draws[0].requires_grad_(), draws[1].log_softmax(-1), draws[2].log_softmax(-1)


def divergence(p, q):
    return sum(a.exp().item() * (a.item() - b.item()) for a, b in zip(p, q, strict=True))


def reverse_gradient(logits, reference):
    """∂ KL(π‖π_ref)/∂ z_v = π_v (log π_v − log π_ref,v − KL)."""
    logprobs = logits.detach().log_softmax(-1)
    return logprobs.exp() * (logprobs - reference - divergence(logprobs, reference))


def forward_gradient(logits, reference):
    """∂ KL(π_ref‖π)/∂ z_v = π_v − π_ref,v."""
    return logits.detach().softmax(-1) - reference.exp()


@pytest.mark.parametrize("name", ESTIMATORS)
def test_value_and_gradient_against_the_plain_loop(name):
    fast, slow = ESTIMATORS[name]
    for seed in range(10):
        batch = ragged(seed)
        scalars.assert_same_terms(
            batch,
            batch.policy,
            lambda lp, old, ref, adv, mask: fast(lp, old, ref),
            lambda lp, old, ref, adv, mask: [slow(*token) for token in zip(lp, old, ref, strict=True)],
            seed=seed,
        )


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.lists(st.tuples(st.floats(-12, 0), st.floats(-12, 0)), min_size=1, max_size=8))
def test_k3_of_any_tokens_against_the_plain_formula(pairs):
    logprobs = torch.tensor([[p for p, _ in pairs]], dtype=torch.float64, requires_grad=True)
    reference = torch.tensor([[q for _, q in pairs]], dtype=torch.float64)
    k3 = kl.k3(logprobs, reference)
    k3.sum().backward()
    expected = torch.tensor([[grpo.k3(p, q) for p, q in pairs]], dtype=torch.float64)
    torch.testing.assert_close(k3.detach(), expected, rtol=1e-6, atol=1e-12)
    slope = torch.tensor([[1 - math.exp(q - p) for p, q in pairs]], dtype=torch.float64)
    torch.testing.assert_close(logprobs.grad, slope, rtol=1e-6, atol=1e-12)


def test_k3_is_never_negative_and_zero_only_where_the_policies_agree():
    difference = torch.linspace(-20, 20, 4001, dtype=torch.float64)
    k3 = kl.k3(torch.full_like(difference, -30.0), difference - 30.0)
    assert (k3 >= 0).all()
    assert (k3[difference.abs() > 1e-3] > 0).all()
    agreeing = torch.tensor([[-0.1, -7.0, -300.0]])
    assert torch.equal(kl.k3(agreeing, agreeing), torch.zeros(1, 3))


@pytest.mark.parametrize("seed", range(5))
def test_the_mean_of_k1_and_k3_is_the_kl_and_that_of_k2_is_not(seed):
    logits, reference, old = categorical(seed)
    logprobs = logits.log_softmax(-1)
    expected = divergence(logprobs, reference)
    for name in ("k1", "k3"):
        mean = (logprobs.exp() * ESTIMATORS[name][0](logprobs, old, reference)).sum()
        assert mean.item() == pytest.approx(expected, rel=1e-9)
    drawn_from_old = (old.exp() * kl.weighted_k3(logprobs, old, reference)).sum()
    assert drawn_from_old.item() == pytest.approx(expected, rel=1e-9)
    assert abs((logprobs.exp() * kl.k2(logprobs, reference)).sum().item() / expected - 1) > 0.02


@pytest.mark.parametrize("seed", range(5))
def test_the_expected_gradient_of_each_as_a_loss_on_policy(seed):
    """k1: zero. k2 and ρ-weighted k3: that of the reverse KL. k3: that of the forward KL."""
    logits, reference, _ = categorical(seed)
    reverse, forward = reverse_gradient(logits, reference), forward_gradient(logits, reference)
    expected = {"k1": torch.zeros_like(reverse), "k2": reverse, "k3": forward, "weighted_k3": reverse}
    for name, gradient in expected.items():
        logprobs = logits.log_softmax(-1)
        terms = ESTIMATORS[name][0](logprobs, logprobs.detach(), reference)
        (found,) = torch.autograd.grad((logprobs.exp().detach() * terms).sum(), logits)
        torch.testing.assert_close(found, gradient, rtol=1e-9, atol=1e-12)
    assert (reverse - forward).abs().max() > 1e-2


@pytest.mark.parametrize("seed", range(5))
def test_weighted_k3_gives_the_reverse_gradient_for_tokens_of_another_policy(seed):
    logits, reference, old = categorical(seed)
    reverse = reverse_gradient(logits, reference)
    for name, agrees in (("weighted_k3", True), ("k2", False), ("k3", False)):
        terms = ESTIMATORS[name][0](logits.log_softmax(-1), old, reference)
        (found,) = torch.autograd.grad((old.exp() * terms).sum(), logits)
        assert torch.allclose(found, reverse, rtol=1e-9, atol=1e-12) is agrees


@pytest.mark.parametrize("seed", range(5))
def test_the_exact_kl_against_the_plain_sum(seed):
    logits, reference, _ = categorical(seed)
    logprobs = logits.log_softmax(-1)
    exact = kl.exact_kl(torch.stack([logprobs, logprobs]), torch.stack([reference, logprobs.detach()]))
    plain = oracle.divergence(logits.softmax(-1).unbind(), reference.exp().unbind())
    assert exact.tolist() == pytest.approx([plain.item(), 0.0], rel=1e-9, abs=1e-12)
    (gradient,) = torch.autograd.grad(exact[0], logits, retain_graph=True)
    (plain_gradient,) = torch.autograd.grad(plain, logits)
    torch.testing.assert_close(gradient, plain_gradient, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(gradient, reverse_gradient(logits, reference), rtol=1e-9, atol=1e-12)


def test_a_token_that_is_never_written_adds_nothing_to_the_exact_kl():
    logprobs = torch.tensor([[0.25, 0.75, 0.0]], dtype=torch.float64).log().requires_grad_()
    for last in (0.0, 0.5):
        reference = torch.tensor([[0.5, 0.5 - last / 2, last]], dtype=torch.float64).log()
        exact = kl.exact_kl(logprobs, reference)
        by_hand = 0.25 * math.log(0.5) + 0.75 * math.log(0.75 / (0.5 - last / 2))
        assert exact.item() == pytest.approx(by_hand)
        (gradient,) = torch.autograd.grad(exact.sum(), logprobs)
        assert gradient.isfinite().all()
    assert kl.exact_kl(torch.full((1, 2), 0.5).log(), torch.tensor([[1.0, 0.0]]).log()).item() == math.inf
