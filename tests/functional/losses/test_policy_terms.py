"""Every policy loss against plain loops on ragged batches, value and gradient; and the identities between them."""

import math

import pytest
import torch

from oracles import policy as oracle
from oracles.ragged import padded, padded_mask, ragged
from oracles.scalars import assert_same_terms, constant_advantages, token_advantages
from sharpen.functional.losses import policy

TIGHT = {"eps_low": 0.03, "eps_high": 0.04}
USUAL = {"eps_low": 0.2, "eps_high": 0.28}
DUAL = {**USUAL, "dual_clip": 1.3}

LOSSES = {
    "policy_gradient": (
        lambda lp, old, ref, adv, mask: policy.policy_gradient(lp, adv),
        lambda lp, old, ref, adv, mask: oracle.policy_gradient(lp, adv),
    ),
    "kl_penalised": (
        lambda lp, old, ref, adv, mask: policy.kl_penalised_surrogate(lp, old, adv, beta=0.7),
        lambda lp, old, ref, adv, mask: oracle.kl_penalised(lp, old, adv, 0.7),
    ),
    "cispo": (
        lambda lp, old, ref, adv, mask: policy.clipped_weight_surrogate(lp, old, adv, eps_high=0.2)[0],
        lambda lp, old, ref, adv, mask: oracle.clipped_weight(lp, old, adv, 0.2),
    ),
    "cispo_two_sided": (
        lambda lp, old, ref, adv, mask: policy.clipped_weight_surrogate(lp, old, adv, eps_high=0.2, eps_low=0.1)[0],
        lambda lp, old, ref, adv, mask: oracle.clipped_weight(lp, old, adv, 0.2, 0.1),
    ),
}
for label, bounds in {"tight": TIGHT, "usual": USUAL, "dual": DUAL}.items():
    LOSSES[f"clipped_{label}"] = (
        lambda lp, old, ref, adv, mask, b=bounds: policy.clipped_surrogate(lp, old, adv, **b)[0],
        lambda lp, old, ref, adv, mask, b=bounds: oracle.clipped(lp, old, adv, **b),
    )
    LOSSES[f"sequence_{label}"] = (
        lambda lp, old, ref, adv, mask, b=bounds: policy.sequence_surrogate(lp, old, adv, mask, **b)[0],
        lambda lp, old, ref, adv, mask, b=bounds: oracle.sequence(lp, old, adv, mask, **b),
    )
    LOSSES[f"sequence_token_{label}"] = (
        lambda lp, old, ref, adv, mask, b=bounds: policy.sequence_token_surrogate(lp, old, adv, mask, **b)[0],
        lambda lp, old, ref, adv, mask, b=bounds: oracle.sequence_token(lp, old, adv, mask, **b),
    )


@pytest.mark.parametrize("advantages", [token_advantages, constant_advantages])
@pytest.mark.parametrize("name", LOSSES)
def test_value_and_gradient_against_the_plain_loop(name, advantages):
    for seed in range(8):
        batch = ragged(seed)
        assert_same_terms(batch, advantages(batch, seed), *LOSSES[name], seed=seed)


# ratio, advantage, what is maximised with bounds 0.8 and 1.2 and a dual clip at 3, whether a gradient flows
DUAL_CORNERS = [
    (5.0, -2.0, -6.0, False),
    (3.5, -1.0, -3.0, False),
    (2.5, -1.0, -2.5, True),
    (0.5, -1.0, -0.8, False),
    (0.9, -1.0, -0.9, True),
    (5.0, 2.0, 2.4, False),
    (1.1, 2.0, 2.2, True),
]


@pytest.mark.parametrize(("ratio", "advantage", "maximised", "is_live"), DUAL_CORNERS)
def test_the_dual_clip_by_hand(ratio, advantage, maximised, is_live):
    logprobs = torch.tensor([[math.log(ratio) - 2.0]], dtype=torch.float64, requires_grad=True)
    old, advantages = torch.tensor([[-2.0]], dtype=torch.float64), torch.tensor([[advantage]], dtype=torch.float64)
    loss, unclipped = policy.clipped_surrogate(logprobs, old, advantages, eps_low=0.2, eps_high=0.2, dual_clip=3.0)
    loss.sum().backward()
    assert loss.item() == pytest.approx(-maximised)
    assert unclipped.item() is is_live
    assert logprobs.grad.item() == pytest.approx(-ratio * advantage if is_live else 0.0)


@pytest.mark.parametrize("dual_clip", [1.0, 0.2, -3.0])
def test_a_dual_clip_that_would_cut_at_ratio_one_is_refused(dual_clip):
    one = torch.ones(1, 1)
    with pytest.raises(ValueError, match="dual_clip"):
        policy.clipped_surrogate(one, one, one, eps_low=0.2, eps_high=0.2, dual_clip=dual_clip)


def test_live_is_where_the_gradient_is():
    """For every clipped loss, and only there; the ratio of a token drawn from π itself included."""
    for seed in range(8):
        batch = ragged(seed)
        mask, old = padded_mask(batch.mask), padded(batch.old)
        advantages = padded(constant_advantages(batch, seed))
        for bounds in (TIGHT, DUAL):
            for name in ("clipped_surrogate", "sequence_surrogate", "sequence_token_surrogate"):
                logprobs = padded(batch.policy).requires_grad_()
                extra = () if name == "clipped_surrogate" else (mask,)
                loss, unclipped = getattr(policy, name)(logprobs, old, advantages, *extra, **bounds)
                loss.sum().backward()
                assert torch.equal((logprobs.grad != 0)[mask], unclipped[mask])


def test_a_sequence_ratio_by_hand():
    # Ratios 2 and 1/8 of the tokens that count: (1/4)^(1/2). The second sequence has no token that counts.
    logprobs = torch.tensor([[math.log(2), 5.0, -math.log(8)], [1.0, 2.0, 3.0]], dtype=torch.float64)
    mask = torch.tensor([[True, False, True], [False, False, False]])
    assert policy.sequence_ratio(logprobs, torch.zeros_like(logprobs), mask).tolist() == pytest.approx([0.5, 1.0])


def test_one_over_the_length_times_the_sum_is_the_sequence_loss():
    logprobs = torch.tensor([[0.0, 0.02, 0.01]], dtype=torch.float64)
    mask = torch.tensor([[True, True, False]])
    options = {"eps_low": 0.2, "eps_high": 0.2}
    loss, _ = policy.sequence_surrogate(
        logprobs, torch.zeros_like(logprobs), torch.full_like(logprobs, 3), mask, **options
    )
    assert loss.tolist()[0] == pytest.approx([-3 * math.exp(0.01), -3 * math.exp(0.01), 0.0])
    assert loss.sum().item() / 2 == pytest.approx(-3 * math.exp(0.01))


@pytest.mark.parametrize("bounds", [TIGHT, USUAL, DUAL])
def test_gspo_token_is_gspo_where_the_advantage_is_constant(bounds):
    for seed in range(10):
        batch = ragged(seed)
        mask, old, advantages = padded_mask(batch.mask), padded(batch.old), padded(constant_advantages(batch, seed))
        results = []
        for surrogate in (policy.sequence_surrogate, policy.sequence_token_surrogate):
            logprobs = padded(batch.policy).requires_grad_()
            loss, unclipped = surrogate(logprobs, old, advantages, mask, **bounds)
            per_sequence = loss.sum(1) / mask.sum(1).clamp(min=1)
            per_sequence.sum().backward()
            results.append((per_sequence.detach(), unclipped & mask, logprobs.grad))
        for sequence, token in zip(*results, strict=True):
            torch.testing.assert_close(sequence, token, rtol=1e-10, atol=1e-14)


def test_at_ratio_one_all_are_the_plain_policy_gradient():
    batch = ragged(2)
    mask, advantages = padded_mask(batch.mask), padded(constant_advantages(batch, 2))

    def gradient(surrogate):
        logprobs = padded(batch.policy).requires_grad_()
        (surrogate(logprobs, logprobs.detach()) * mask).sum().backward()
        return logprobs.grad

    expected = gradient(lambda lp, old: policy.policy_gradient(lp, advantages))
    torch.testing.assert_close(expected, -advantages * mask)
    for bounds in (TIGHT, {"eps_low": 0.0, "eps_high": 0.0}, DUAL):
        for surrogate in (
            lambda lp, old, b=bounds: policy.clipped_surrogate(lp, old, advantages, **b)[0],
            lambda lp, old, b=bounds: policy.sequence_surrogate(lp, old, advantages, mask, **b)[0],
            lambda lp, old, b=bounds: policy.sequence_token_surrogate(lp, old, advantages, mask, **b)[0],
        ):
            torch.testing.assert_close(gradient(surrogate), expected, rtol=1e-10, atol=1e-14)
    for surrogate in (
        lambda lp, old: policy.kl_penalised_surrogate(lp, old, advantages, beta=5.0),
        lambda lp, old: policy.clipped_weight_surrogate(lp, old, advantages, eps_high=0.0)[0],
    ):
        torch.testing.assert_close(gradient(surrogate), expected, rtol=1e-10, atol=1e-14)


def test_the_penalty_is_the_kl_from_the_old_policy_in_mean_and_gradient():
    """By enumeration of a small categorical policy, for tokens drawn from π_old."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, dtype=torch.float64, generator=generator).requires_grad_()
    old = torch.randn(5, dtype=torch.float64, generator=generator).log_softmax(-1)
    terms = policy.kl_penalised_surrogate(logits.log_softmax(-1), old, torch.zeros(5, dtype=torch.float64), beta=1.0)
    mean = (old.exp() * terms).sum()
    kl = sum(p.exp().item() * (p - q).item() for p, q in zip(old, logits.log_softmax(-1), strict=True))
    assert mean.item() == pytest.approx(kl, rel=1e-9)
    (gradient,) = torch.autograd.grad(mean, logits)
    # ∂ KL(π_old‖π)/∂ logits is π − π_old.
    torch.testing.assert_close(gradient, logits.detach().softmax(-1) - old.exp(), rtol=1e-9, atol=1e-12)


def test_cispo_caps_the_weight_and_drops_no_token():
    ratios, advantages = [0.1, 1.0, 5.0, 5.0, 0.1], [1.0, 1.0, 1.0, -1.0, -1.0]
    logprobs = (torch.tensor([ratios], dtype=torch.float64).log() - 3.0).requires_grad_()
    old, a = torch.full_like(logprobs, -3.0).detach(), torch.tensor([advantages], dtype=torch.float64)
    loss, unclipped = policy.clipped_weight_surrogate(logprobs, old, a, eps_high=0.5)
    loss.sum().backward()
    assert unclipped.tolist() == [[True, True, False, False, True]]
    assert (-logprobs.grad).tolist()[0] == pytest.approx([0.1, 1.0, 1.5, -1.5, -0.1])
    logprobs.grad = None
    policy.clipped_weight_surrogate(logprobs, old, a, eps_high=0.5, eps_low=0.25)[0].sum().backward()
    assert (-logprobs.grad).tolist()[0] == pytest.approx([0.75, 1.0, 1.5, -1.5, -0.75])


def test_truncated_importance_weights_by_hand():
    old = torch.tensor([[-1.0, -1.0, -1.0]], dtype=torch.float64, requires_grad=True)
    sample = torch.tensor([[-1.0, -1.0 - math.log(1.5), -1.0 + math.log(4)]], dtype=torch.float64)
    weights = policy.truncated_importance_weights(old, sample, cap=1.25)
    assert weights.tolist()[0] == pytest.approx([1.0, 1.25, 0.25])
    assert not weights.requires_grad
    for seed in range(5):
        batch = ragged(seed)
        found = policy.truncated_importance_weights(padded(batch.policy), padded(batch.old), cap=1.1)
        expected = [
            [min(math.exp(x) / math.exp(y), 1.1) for x, y in zip(xs, ys, strict=True)]
            for xs, ys in zip(batch.policy, batch.old, strict=True)
        ]
        torch.testing.assert_close(found, padded(expected, fill=1.0), rtol=1e-9, atol=0)
