"""The parts put together, from rewards to the gradient of a whole step, against the plain loops."""

import math

import pytest
import torch

from oracles import differences, grpo, reduction
from oracles.advantages import outcome_advantages
from oracles.ragged import padded, padded_mask, ragged
from sharpen.functional.advantages import group_advantages
from sharpen.functional.losses import reduce
from sharpen.functional.losses.kl import k3
from sharpen.functional.losses.policy import clipped_surrogate

LENGTH = 9
REDUCTIONS = {
    "per_sequence": (reduce.per_sequence, reduction.per_sequence),
    "tokens_of_group": (reduce.tokens_of_group, reduction.tokens_of_group),
    "tokens_of_batch": (
        lambda mask, group, dtype: reduce.tokens_of_batch(mask, dtype=dtype),
        reduction.tokens_of_batch,
    ),
    "constant_length": (
        lambda mask, group, dtype: reduce.constant_length(mask, group, LENGTH, dtype=dtype),
        lambda terms, mask, groups: reduction.constant_length(terms, mask, groups, LENGTH),
    ),
}
SETTINGS = [
    {"eps_low": 0.2, "eps_high": 0.2, "beta": 0.04},
    {"eps_low": 0.2, "eps_high": 0.28, "beta": 0.0},
    {"eps_low": 0.05, "eps_high": 0.1, "beta": 0.7},
]


def token_losses(logprobs, old, reference, advantages, *, eps_low, eps_high, beta):
    loss, _ = clipped_surrogate(logprobs, old, advantages, eps_low=eps_low, eps_high=eps_high)
    return loss + beta * k3(logprobs, reference)


def fast_step(batch, reduction_name, settings, rows_per_cut=None):
    """Loss and gradient by the library, in one piece or in cuts of some sequences."""
    mask, groups = padded_mask(batch.mask), torch.tensor(batch.groups)
    rewards = torch.tensor(batch.rewards, dtype=torch.float64)
    advantages = group_advantages(rewards, groups)[:, None].expand(mask.shape)
    weights = REDUCTIONS[reduction_name][0](mask, groups, dtype=torch.float64)
    logprobs = padded(batch.policy).requires_grad_()
    old, reference = padded(batch.old), padded(batch.reference)
    total = 0.0
    for cut in torch.arange(len(groups)).split(rows_per_cut or len(groups)):
        losses = token_losses(logprobs[cut], old[cut], reference[cut], advantages[cut], **settings)
        loss = (weights[cut] * losses).sum()
        loss.backward()
        total += loss.item()
    return total, logprobs.grad


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("name", REDUCTIONS)
def test_a_whole_step_against_the_plain_loops(name, settings):
    for seed in range(15):
        batch = ragged(seed)
        advantages = outcome_advantages(batch.rewards, batch.groups)
        reduce_terms = REDUCTIONS[name][1]
        loss, gradient = fast_step(batch, name, settings)
        expected = grpo.loss(batch.policy, batch, advantages, reduce=reduce_terms, **settings)
        assert loss == pytest.approx(expected, rel=1e-6, abs=1e-12)
        expected_gradient = grpo.loss_gradient(batch.policy, batch, advantages, reduce=reduce_terms, **settings)
        torch.testing.assert_close(gradient, padded(expected_gradient, fill=0.0), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("name", REDUCTIONS)
@pytest.mark.parametrize("rows_per_cut", [1, 3])
def test_the_cut_into_micro_batches_does_not_matter(name, rows_per_cut):
    for seed in range(5):
        whole = fast_step(ragged(seed), name, SETTINGS[0])
        cut = fast_step(ragged(seed), name, SETTINGS[0], rows_per_cut)
        assert cut[0] == pytest.approx(whole[0], rel=1e-9, abs=1e-12)
        torch.testing.assert_close(cut[1], whole[1], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", REDUCTIONS)
def test_the_closed_form_against_finite_differences(name):
    settings = {"eps_low": 0.2, "eps_high": 0.28, "beta": 0.3}
    for seed in range(6):
        batch = ragged(seed, longest=4)
        advantages = outcome_advantages(batch.rewards, batch.groups)
        common = {"batch": batch, "advantages": advantages, "reduce": REDUCTIONS[name][1], **settings}
        closed = grpo.loss_gradient(batch.policy, **common)
        numeric = differences.gradient(lambda rows, common=common: grpo.loss(rows, **common), batch.policy)
        torch.testing.assert_close(padded(closed), padded(numeric), rtol=1e-5, atol=1e-8)


def test_the_gradient_coefficient_on_policy():
    """With π_old = π_θ and before length normalisation: Â + β(π_ref/π_θ − 1)."""
    batch, beta = ragged(1), 0.04
    logprobs, reference = padded(batch.policy).requires_grad_(), padded(batch.reference)
    generator = torch.Generator().manual_seed(0)
    advantages = torch.randn(logprobs.shape, dtype=torch.float64, generator=generator)
    losses = token_losses(logprobs, logprobs.detach(), reference, advantages, eps_low=0.2, eps_high=0.2, beta=beta)
    losses.sum().backward()
    closed = advantages + beta * ((reference - logprobs.detach()).exp() - 1)
    torch.testing.assert_close(-logprobs.grad, closed, rtol=1e-9, atol=1e-12)


def test_on_policy_the_loss_is_zero_and_its_gradient_is_not():
    """Σ Â = 0 within a group, so one-token completions at ratio 1 sum to nothing while they still teach."""
    batch = ragged(0)
    batch.policy = batch.old = batch.reference = [[-0.5], [-1.5], [-2.5], [-0.1]]
    batch.mask, batch.groups, batch.rewards = [[True]] * 4, [0] * 4, [1.0, 0.0, 0.0, 1.0]
    loss, gradient = fast_step(batch, "per_sequence", SETTINGS[0])
    assert loss == pytest.approx(0, abs=1e-12)
    sign = math.sqrt(3 / 4) / 4
    assert gradient.flatten().tolist() == pytest.approx([-sign, sign, sign, -sign])
