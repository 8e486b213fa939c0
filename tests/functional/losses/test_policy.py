import math

import pytest
import torch

from oracles import grpo
from oracles.ragged import padded, ragged
from sharpen.functional.losses.policy import clipped_surrogate

BOUNDS = [(0.2, 0.2), (0.2, 0.28), (0.05, 0.4), (0.9, 10.0)]


def one_token(ratio, advantage, eps_low=0.2, eps_high=0.2):
    """(loss, unclipped, ∂loss/∂log π) of a single token."""
    logprob = torch.tensor([[math.log(ratio) - 1.0]], dtype=torch.float64, requires_grad=True)
    old = torch.tensor([[-1.0]], dtype=torch.float64)
    advantages = torch.tensor([[advantage]], dtype=torch.float64)
    loss, unclipped = clipped_surrogate(logprob, old, advantages, eps_low=eps_low, eps_high=eps_high)
    loss.sum().backward()
    return loss.item(), unclipped.item(), logprob.grad.item()


@pytest.mark.parametrize(("eps_low", "eps_high"), BOUNDS)
@pytest.mark.parametrize("seed", range(10))
def test_value_live_and_gradient_against_the_plain_loop(seed, eps_low, eps_high):
    batch = ragged(seed)
    generator = torch.Generator().manual_seed(seed)
    logprobs = padded(batch.policy).requires_grad_()
    old = padded(batch.old)
    # One advantage per token, as process rewards and critics give: both signs can meet in one sequence.
    advantages = torch.randn(old.shape, dtype=torch.float64, generator=generator)
    loss, unclipped = clipped_surrogate(logprobs, old, advantages, eps_low=eps_low, eps_high=eps_high)
    loss.sum().backward()

    expected_loss, expected_live, expected_grad = torch.zeros_like(loss), torch.zeros_like(unclipped), []
    for i in range(loss.shape[0]):
        for t in range(loss.shape[1]):
            token = (logprobs[i, t].item(), old[i, t].item(), advantages[i, t].item(), eps_low, eps_high)
            expected_loss[i, t] = -grpo.surrogate_term(*token)
            expected_live[i, t] = grpo.is_live(*token)
            expected_grad.append(-math.exp(token[0] - token[1]) * token[2] if grpo.is_live(*token) else 0.0)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-6, atol=1e-12)
    assert unclipped.dtype == torch.bool
    assert torch.equal(unclipped, expected_live)
    expected_grad = torch.tensor(expected_grad, dtype=torch.float64).reshape(loss.shape)
    torch.testing.assert_close(logprobs.grad, expected_grad, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("advantage", [-2.0, -0.3, 0.7, 3.0])
def test_at_ratio_one_the_clip_is_not_there(advantage):
    for eps in (0.0, 1e-3, 0.2, 5.0):
        loss, unclipped, gradient = one_token(1.0, advantage, eps_low=min(eps, 0.99), eps_high=eps)
        assert loss == pytest.approx(-advantage)
        assert gradient == pytest.approx(-advantage)
        assert unclipped


# ratio, advantage, expected value of min[ρÂ, clip(ρ)Â], whether a gradient flows
CORNERS = [
    (2.0, 1.0, 1.2, False),
    (0.5, 1.0, 0.5, True),
    (2.0, -1.0, -2.0, True),
    (0.5, -1.0, -0.8, False),
    (1.1, 1.0, 1.1, True),
    (0.9, -1.0, -0.9, True),
]


@pytest.mark.parametrize(("ratio", "advantage", "objective", "unclipped"), CORNERS)
def test_the_four_corners_of_the_clip(ratio, advantage, objective, unclipped):
    loss, is_live, gradient = one_token(ratio, advantage)
    assert loss == pytest.approx(-objective)
    assert is_live is unclipped
    assert gradient == pytest.approx(-ratio * advantage if unclipped else 0.0)


def test_zero_advantage_has_neither_loss_nor_gradient():
    for ratio in (0.5, 1.0, 2.0):
        loss, _, gradient = one_token(ratio, 0.0)
        assert loss == 0
        assert gradient == 0


def test_the_old_policy_as_the_detached_policy_still_gives_the_gradient():
    logprobs = torch.tensor([[-1.0, -0.2]], dtype=torch.float64, requires_grad=True)
    advantages = torch.tensor([[1.5, -0.5]], dtype=torch.float64)
    loss, unclipped = clipped_surrogate(logprobs, logprobs.detach(), advantages, eps_low=0.2, eps_high=0.2)
    loss.sum().backward()
    torch.testing.assert_close(logprobs.grad, -advantages)
    assert unclipped.all()
