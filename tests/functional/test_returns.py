import random

import pytest
import torch

from oracles import returns as oracle
from oracles.ragged import padded, padded_mask, ragged
from sharpen.functional.returns import at_last, at_last_token, gae, reward_to_go, td_targets

SETTINGS = [(1.0, 1.0), (1.0, 0.95), (0.9, 0.0), (0.97, 0.5), (0.0, 1.0)]


def rows_like(batch, seed):
    rng = random.Random(seed)
    return [[rng.gauss(0, 1) for _ in row] for row in batch.policy]


def trajectories(seed):
    """Rewards, values and masks with untrained tokens between, and a bootstrap value per sequence."""
    batch = ragged(seed)
    rewards, values = rows_like(batch, f"rewards {seed}"), rows_like(batch, f"values {seed}")
    bootstrap = [random.Random(f"{seed} {i}").gauss(0, 1) for i in range(len(rewards))]
    return rewards, values, batch.mask, bootstrap


def assert_rows(found, expected):
    torch.testing.assert_close(found, padded(expected, fill=0.0), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("bootstrapped", [False, True])
@pytest.mark.parametrize(("gamma", "lam"), SETTINGS)
def test_against_the_plain_sums(gamma, lam, bootstrapped):
    for seed in range(20):
        rewards, values, mask, ends = trajectories(seed)
        bootstrap = torch.tensor(ends, dtype=torch.float64) if bootstrapped else None
        ends = ends if bootstrapped else [0.0] * len(ends)
        fast = padded(rewards), padded(values), padded_mask(mask)
        sequences = list(zip(rewards, values, mask, ends, strict=True))

        assert_rows(
            gae(*fast, gamma=gamma, lam=lam, bootstrap_E=bootstrap),
            [oracle.gae(r, v, m, gamma, lam, end) for r, v, m, end in sequences],
        )
        assert_rows(
            td_targets(*fast, gamma=gamma, bootstrap_E=bootstrap),
            [oracle.td_targets(r, v, m, gamma, end) for r, v, m, end in sequences],
        )
        assert_rows(
            reward_to_go(fast[0], fast[2], gamma=gamma),
            [oracle.reward_to_go(r, m, gamma) for r, _, m, _ in sequences],
        )


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_lambda_1_is_return_less_value_and_lambda_0_the_td_error(gamma):
    for seed in range(10):
        rewards, values, mask, _ = (padded(x) if i < 2 else x for i, x in enumerate(trajectories(seed)))
        mask = padded_mask(mask)
        monte_carlo = (reward_to_go(rewards, mask, gamma=gamma) - values) * mask
        torch.testing.assert_close(gae(rewards, values, mask, gamma=gamma, lam=1.0), monte_carlo)
        td_error = (td_targets(rewards, values, mask, gamma=gamma) - values) * mask
        torch.testing.assert_close(gae(rewards, values, mask, gamma=gamma, lam=0.0), td_error)


# One sequence, a reward of 1 at the end, γ = ½, λ = ½.
REWARDS = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
VALUES = torch.tensor([[0.5, 0.25, 0.75]], dtype=torch.float64)


def test_gae_by_hand():
    """δ = (−0.375, 0.125, 0.25), A = δ_t + A_{t+1}/4."""
    found = gae(REWARDS, VALUES, torch.ones(1, 3, dtype=torch.bool), gamma=0.5, lam=0.5)
    assert found.tolist()[0] == pytest.approx([-0.375 + 0.1875 / 4, 0.125 + 0.25 / 4, 0.25])


def test_a_completion_that_was_cut_off_goes_on_with_the_bootstrap_value():
    mask = torch.ones(1, 3, dtype=torch.bool)
    bootstrap = torch.tensor([2.0])
    assert td_targets(REWARDS, VALUES, mask, gamma=0.5, bootstrap_E=bootstrap).tolist() == [[0.125, 0.375, 2.0]]
    assert gae(REWARDS, VALUES, mask, gamma=0.5, lam=0.5, bootstrap_E=bootstrap)[0, 2].item() == 1.25


def test_a_reply_between_takes_no_time():
    """With a token between that is not trained on, the numbers of the others are as if it were not there."""

    def wider(tensor, filler):
        return torch.cat([tensor[:, :1], torch.full_like(tensor[:, :1], filler), tensor[:, 1:]], dim=1)

    whole = torch.ones(1, 3, dtype=torch.bool)
    gapped = wider(whole, False)
    rewards, values = wider(REWARDS, 9.0), wider(VALUES, 7.0)
    functions = (
        lambda r, v, mask: gae(r, v, mask, gamma=0.5, lam=0.5),
        lambda r, v, mask: td_targets(r, v, mask, gamma=0.5),
        lambda r, v, mask: reward_to_go(r, mask, gamma=0.5),
    )
    for function in functions:
        assert torch.equal(function(rewards, values, gapped), wider(function(REWARDS, VALUES, whole), 0.0))


def test_reward_to_go_by_hand():
    rewards = torch.tensor([[1.0, 2.0, 4.0]])
    mask = torch.tensor([[True, True, True]])
    assert reward_to_go(rewards, mask).tolist() == [[7.0, 6.0, 4.0]]
    assert reward_to_go(rewards, mask, gamma=0.5).tolist() == [[3.0, 4.0, 4.0]]


def test_the_reward_falls_on_the_last_token_that_is_trained_on():
    mask = torch.tensor([[1, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]], dtype=torch.bool)
    rewards = torch.tensor([2.0, -1.0, 5.0, float("nan")], dtype=torch.float64)
    found = at_last_token(rewards, mask)
    assert found.dtype == torch.float64
    assert found.tolist() == [[0, 2, 0, 0], [0, 0, -1, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


def test_the_value_at_the_last_token_that_is_trained_on():
    mask = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 0, 0]], dtype=torch.bool)
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0], [7.0, 8.0, 9.0]], requires_grad=True)
    found = at_last(values, mask)
    assert found.tolist() == [2.0, 6.0, 0.0]
    found.sum().backward()
    assert values.grad.tolist() == [[0, 1, 0], [0, 0, 1], [0, 0, 0]]
