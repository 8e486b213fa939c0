"""One test per row of what popular write-ups say otherwise than the papers, as far as pure functions can tell.

That a policy gradient may have an entropy bonus, and when the reference is reset, is held where methods and training
are tested.
"""

import math

import pytest
import torch

from sharpen.functional.advantages import group_advantages, process_advantages
from sharpen.functional.losses import reduce
from sharpen.functional.losses.kl import k1, k3
from sharpen.functional.losses.policy import clipped_surrogate
from sharpen.functional.losses.value import value_loss
from sharpen.functional.returns import gae, td_targets

ONE_GROUP = torch.tensor([0, 0, 0])
SYMMETRIC = {"eps_low": 0.2, "eps_high": 0.2}


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def clipped(ratio, advantage, **bounds):
    """(what is maximised, the gradient coefficient) of one token."""
    logprob = tensor([math.log(ratio) - 1.0]).requires_grad_()
    loss, _ = clipped_surrogate(logprob, tensor([-1.0]), tensor([advantage]), **{**SYMMETRIC, **bounds})
    loss.sum().backward()
    return -loss.item(), -logprob.grad.item()


@pytest.mark.parametrize(
    ("rewards", "ddof", "std", "advantages"),
    [
        ((3.8, 5.2, 6.1), 1, 1.159, (-1.0641, 0.1438, 0.9203)),
        ((6.0, 8.0, 9.0), 0, 1.247, (-1.3363, 0.2673, 1.0690)),
        ((6.0, 8.0, 9.0), 1, 1.528, (-1.0911, 0.2182, 0.8729)),
    ],
)
def test_std_with_g_minus_1_or_with_g(rewards, ddof, std, advantages):
    found = group_advantages(tensor(*rewards), ONE_GROUP, ddof=ddof).tolist()
    assert found == pytest.approx(advantages, abs=1e-4)
    assert (rewards[2] - rewards[0]) / (found[2] - found[0]) == pytest.approx(std, abs=5e-4)


def test_std_with_g_minus_1_is_the_default():
    rewards = tensor(6.0, 8.0, 9.0)
    assert torch.equal(group_advantages(rewards, ONE_GROUP), group_advantages(rewards, ONE_GROUP, ddof=1))


def test_min_of_the_ratios_times_the_advantage():
    """min(ρ, clip ρ)·Â would stop the correction of ρ = 2 at Â = −1 and let ρ = 0.5 run away."""
    assert clipped(2.0, -1.0) == pytest.approx((-2.0, -2.0))
    assert clipped(0.5, -1.0) == pytest.approx((-0.8, 0.0))
    for ratio in (0.5, 2.0):
        wrong = min(ratio, max(0.8, min(1.2, ratio))) * -1.0
        assert abs(clipped(ratio, -1.0)[0] - wrong) > 0.25


@pytest.mark.parametrize("logprob", [-0.01, -1.0, -15.0])
def test_eps_low_for_rare_tokens_and_eps_high_for_common_ones(logprob):
    """Each bound holds for every token, however probable, and for one sign of the advantage only."""
    old = tensor([logprob])
    for ratio in (0.3, 0.75, 0.95, 1.05, 1.25, 3.0):

        def loss(advantage, low, high, ratio=ratio):
            new = old + math.log(ratio)
            return clipped_surrogate(new, old, tensor([advantage]), eps_low=low, eps_high=high)[0].item()

        assert len({loss(1.0, low, 0.2) for low in (0.01, 0.2, 0.9)}) == 1
        assert len({loss(-1.0, 0.2, high) for high in (0.01, 0.2, 9.0)}) == 1
        assert loss(1.0, 0.2, 0.2) == pytest.approx(-min(ratio, 1.2))
        assert loss(-1.0, 0.2, 0.2) == pytest.approx(max(ratio, 0.8))


def test_kl_against_the_old_policy():
    """It is against the reference: at π = π_old the penalty pulls, by β(r − 1), while one to π_old would not."""
    policy, reference = tensor([-1.0, -2.0]).requires_grad_(), tensor([-2.0, -1.0])
    old = policy.detach()
    loss = clipped_surrogate(policy, old, torch.zeros_like(old), **SYMMETRIC)[0] + 0.04 * k3(policy, reference)
    (gradient,) = torch.autograd.grad(loss.sum(), policy)
    assert (-gradient).tolist()[0] == pytest.approx([0.04 * (math.exp(-1) - 1), 0.04 * (math.exp(1) - 1)])
    (towards_old,) = torch.autograd.grad(k3(policy, old).sum(), policy)
    assert towards_old.tolist() == [[0.0, 0.0]]
    # In PPO's reward, too: −kl_coef (log π − log π_ref).
    assert k1(old, reference).tolist() == [[1.0, -1.0]]


LENGTHS = torch.tensor([[True, False, False, False], [True, True, True, True]])


def test_sum_over_tokens_without_one_over_the_length():
    """GRPO: (1/2)(1/1 + 1/4 each); the other reductions are options that differ."""
    groups = torch.tensor([0, 0])
    weights = reduce.per_sequence(LENGTHS, groups)
    assert weights.tolist() == [[0.5, 0, 0, 0], [0.125, 0.125, 0.125, 0.125]]
    for other in (
        reduce.tokens_of_group(LENGTHS, groups),
        reduce.tokens_of_batch(LENGTHS),
        reduce.constant_length(LENGTHS, groups, 4),
    ):
        assert other[0, 0] == other[1, 0]


def test_process_advantage_is_the_z_score_of_the_own_step_among_steps_of_the_same_index():
    """Two outputs of two and three steps: all five are pooled (mean 2, std √2.5) and summed from each token on."""
    nan = math.nan
    steps = tensor([1.0, nan, 3.0, nan], [0.0, 2.0, nan, 4.0])
    found = process_advantages(steps, torch.ones(2, 4, dtype=torch.bool), torch.tensor([0, 0]))
    std = math.sqrt(10 / 4)
    assert found[0].tolist() == pytest.approx([0.0, 1 / std, 1 / std, 0.0])
    assert found[1].tolist() == pytest.approx([0.0, 2 / std, 2 / std, 2 / std])
    own = process_advantages(steps, torch.ones(2, 4, dtype=torch.bool), torch.tensor([0, 0]), mode="own")
    assert own[0].tolist() == pytest.approx([-1 / std, 1 / std, 1 / std, 0.0])
    assert own[1].tolist() == pytest.approx([-2 / std, 0.0, 2 / std, 2 / std])


def test_one_over_the_length_eases_length_bias():
    """It is a cause: a wrong answer is punished four times less per token for being four times as long."""
    groups = torch.tensor([0, 0])
    wrong = -reduce.per_sequence(LENGTHS, groups)
    assert wrong[0, 0] == 4 * wrong[1, 0]
    unbiased = -reduce.constant_length(LENGTHS, groups, 8)
    assert unbiased[0, 0] == unbiased[1, 0]


def test_ppo_ratio_over_the_base_policy():
    """It is over π_old: far from the reference, at π = π_old, nothing is clipped."""
    old, reference = tensor([-1.0]), tensor([-4.0])
    policy = old.clone().requires_grad_()
    loss, live = clipped_surrogate(policy, old, tensor([2.0]), **SYMMETRIC)
    loss.sum().backward()
    assert (loss.item(), live.item(), policy.grad.item()) == (-2.0, True, -2.0)
    assert not clipped_surrogate(policy, reference, tensor([2.0]), **SYMMETRIC)[1].item()


def test_critic_loss_with_a_gradient_through_its_next_value():
    """The target is stopped. Through R + γV' the next value would get 0.9 · 1.3."""
    values = tensor([1.0, 2.0]).requires_grad_()
    rewards, mask = tensor([0.5, 0.0]), torch.tensor([[True, True]])
    targets = td_targets(rewards, values, mask, gamma=0.9)
    value_loss(values, targets)[:, 0].sum().backward()
    assert values.grad.tolist()[0] == pytest.approx([1.0 - 2.3, 0.0])


def test_critic_target_is_the_lambda_return():
    """A + V: with λ = 1 the return, with λ = 0 TD(0), with λ = ½ half way where one step is left."""
    values, rewards, mask = tensor([1.0, 2.0]), tensor([0.5, 4.0]), torch.tensor([[True, True]])
    for lam, first in ((1.0, 4.5), (0.0, 2.5), (0.5, 3.5)):
        target = gae(rewards, values, mask, gamma=1.0, lam=lam) + values
        assert target.tolist()[0] == pytest.approx([first, 4.0])
