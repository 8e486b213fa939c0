"""PPO bound whole: rewards, GAE, targets, both forms and both critics, on two completions worked out by hand."""

import math
from typing import Any

import pytest
import torch
from hand_made import losses, ready, rollout, rows
from torch import Tensor

from sharpen.batch import Batch, Outputs
from sharpen.methods import PPO

LOG = math.log

OLD = rows([-1, -2], [-1])
REFERENCE = rows([-1.5, -1], [-3])
VALUES = rows([0.5, 1.0], [2.0])
AFTER = torch.tensor([3.0, 7.7], dtype=torch.float64)


def step_of(method: PPO, rewards: tuple[float, float] = (2.0, -1.0), limit: int = 10) -> Batch:
    """β (log π_old − log π_ref) is β times 0.5 and −1 of the first, 2 of the second completion."""
    batch = rollout([[rewards[0]], [rewards[1]]], [[2], [1]], limit)
    said = {"old_logprobs": OLD, "ref_logprobs": REFERENCE, "values": VALUES, "final_values": AFTER}
    return ready(method, batch, **said)


def counted(tensor_ET: Tensor | None, batch: Batch) -> list[float]:
    assert tensor_ET is not None
    assert not tensor_ET[~batch.mask_ET].any()
    return tensor_ET[batch.mask_ET].tolist()


def plain(**settings: Any) -> PPO:
    return PPO(**{"beta": 0.1, "whiten_advantages": False, **settings})


def test_rewards_are_the_outcome_at_the_last_token_less_the_kl_of_each() -> None:
    """With γ = λ = 1 the advantage is the sum of the rewards to come less the value."""
    step = step_of(plain(lam=1.0))
    rewards = [-0.05, 2 + 0.1, -1 - 0.2]
    assert counted(step["advantages"], step) == pytest.approx(
        [rewards[0] + rewards[1] - 0.5, rewards[1] - 1.0, rewards[2] - 2.0]
    )
    assert counted(step["targets"], step) == pytest.approx([rewards[0] + rewards[1], rewards[1], rewards[2]])


def test_the_advantage_is_gae_and_the_target_the_lambda_return_or_td() -> None:
    """γ = 0.9, λ = 0.5: δ = −0.05 + 0.9·1 − 0.5, 2.1 − 1 and −1.2 − 2."""
    deltas = [0.35, 1.1, -3.2]
    expected = [deltas[0] + 0.45 * deltas[1], deltas[1], deltas[2]]
    step = step_of(plain(gamma=0.9, lam=0.5))
    assert counted(step["advantages"], step) == pytest.approx(expected)
    assert counted(step["targets"], step) == pytest.approx([expected[0] + 0.5, 2.1, -1.2])
    step = step_of(plain(gamma=0.9, lam=0.5, value_target="td"))
    assert counted(step["advantages"], step) == pytest.approx(expected)
    assert counted(step["targets"], step) == pytest.approx([-0.05 + 0.9 * 1, 2.1, -1.2])


def test_advantages_are_whitened_over_the_tokens_of_the_batch_and_targets_are_not() -> None:
    step = step_of(PPO(beta=0.1, gamma=0.9, lam=0.5))
    before = [0.845, 1.1, -3.2]
    mean = sum(before) / 3
    std = math.sqrt(sum((x - mean) ** 2 for x in before) / 2)
    assert counted(step["advantages"], step) == pytest.approx([(x - mean) / std for x in before])
    assert counted(step["targets"], step) == pytest.approx([1.345, 2.1, -1.2])


def test_a_completion_that_was_cut_off_goes_on_with_the_value_after_its_last_token() -> None:
    """Of a limit of 2 the first completion reaches it: V = 3 follows its last token. The other ended."""
    ended = step_of(plain(lam=1.0), limit=2)
    goes_on = step_of(plain(lam=1.0, bootstrap_truncated=True), limit=2)
    assert goes_on.truncated_E.tolist() == [True, False]
    difference = [
        b - a for a, b in zip(counted(ended["advantages"], ended), counted(goes_on["advantages"], goes_on), strict=True)
    ]
    assert difference == pytest.approx([3.0, 3.0, 0.0])
    td_method = plain(value_target="td", gamma=0.9, bootstrap_truncated=True)
    td = step_of(td_method, limit=2)
    assert counted(td["targets"], td) == pytest.approx([-0.05 + 0.9, 2.1 + 0.9 * 3, -1.2])
    assert "final_values" in td_method.streams
    assert "final_values" not in plain().streams


@pytest.mark.parametrize(("gamma", "fixed"), [(1.0, 3.0 - 1.0), (0.5, 1.5 - 1.0)])
@pytest.mark.parametrize("target", ["lambda", "td"])
def test_a_critic_that_follows_its_target_comes_to_rest(gamma: float, fixed: float, target: Any) -> None:
    """R = −1 on a completion that was cut off: its last value is to be γ V(s_{T+1}) − 1, not its own value less 1."""
    method = plain(beta=0.0, gamma=gamma, value_target=target, bootstrap_truncated=True)
    batch = rollout([[-1.0]], [[2]], limit=2)
    batch = ready(method, batch, values=VALUES[:1], final_values=AFTER[:1])
    for _ in range(5):
        batch = ready(method, batch, values=batch["targets"])
    assert batch["targets"].tolist() == [pytest.approx([gamma * fixed, fixed])]


def test_clip_form_and_critic_are_means_over_the_tokens_of_the_batch() -> None:
    method = plain(lam=1.0)
    step = step_of(method)
    a = [1.55, 1.1, -3.2]
    now = OLD + rows([LOG(1.5), LOG(1.1)], [LOG(2)])
    values = rows([1.0, 1.0], [0.0])
    found = losses(method, step, logprobs=now, values=values)
    assert found == {
        "policy": pytest.approx(-(1.2 * a[0] + 1.1 * a[1] + 2 * a[2]) / 3),
        "critic": pytest.approx((1.05**2 + 1.1**2 + 1.2**2) / 2 / 3),
    }
    assert [objective.needs for objective in method.objectives()] == [{"logprobs"}, {"values"}]


def test_a_shared_critic_is_a_term_of_the_policys_own_loss() -> None:
    own, shared = plain(lam=1.0), plain(lam=1.0, critic="shared", value_coef=0.3)
    said = {"logprobs": OLD + rows([LOG(1.5), 0], [0]), "values": rows([1.0, 1.0], [0.0])}
    apart, together = (losses(method, step_of(method), **said) for method in (own, shared))
    assert together == {"policy": pytest.approx(apart["policy"] + 0.3 * apart["critic"])}
    [objective] = shared.objectives()
    assert objective.needs == {"logprobs", "values"}
    assert objective.without_advantage


def test_kl_form_penalises_the_way_from_the_policy_that_sampled() -> None:
    """ρA − β'(ρ − 1 − log ρ), no clip, with the present β' = 2."""
    method = plain(lam=1.0, form="kl", old_kl_coef=0.5)
    assert method.coefficients()["old_kl"].initial == 0.5
    step = step_of(method)
    assert step.coefficients == {"beta": 0.1, "old_kl": 0.5}
    now = OLD + rows([LOG(1.5), 0], [LOG(0.5)])
    penalty = (0.5 - LOG(1.5)) + (LOG(2) - 0.5)
    expected = -(1.5 * 1.55 + 1.1 - 0.5 * 3.2 - 0.5 * penalty) / 3
    assert losses(method, step, logprobs=now, values=VALUES)["policy"] == pytest.approx(expected)


def test_a_value_beyond_its_bound_has_no_gradient() -> None:
    """From 0.5 to 0.9 towards 2.05 it has passed 0.5 + 0.2; the others have not moved."""
    method = plain(lam=1.0, value_clip=0.2)
    step = step_of(method)
    assert method.objectives()[1].streams == {"values"}
    values = rows([0.9, 1.0], [2.0]).requires_grad_()
    terms = method.objectives()[1].terms(Outputs(values=values), step).loss
    assert terms[0, 0].item() == pytest.approx((2.05 - 0.7) ** 2 / 2)
    terms[step.mask_ET].sum().backward()
    assert values.grad is not None
    assert values.grad[step.mask_ET].tolist() == pytest.approx([0.0, 1.0 - 2.1, 2.0 + 1.2])


# Where popular write-ups go wrong


def test_the_ratio_is_over_the_policy_that_sampled_not_over_the_reference() -> None:
    """However far the reference, at π = π_old nothing is clipped and the gradient is A."""
    method = plain(lam=1.0)
    step = step_of(method)
    assert (OLD - REFERENCE)[step.mask_ET].exp().max() > 1.2
    now = OLD.clone().requires_grad_()
    terms = method.objectives()[0].terms(Outputs(logprobs=now), step)
    assert terms.unclipped_ET is not None
    assert terms.unclipped_ET[step.mask_ET].all()
    terms.loss[step.mask_ET].sum().backward()
    assert now.grad is not None
    assert (-now.grad[step.mask_ET]).tolist() == pytest.approx([1.55, 1.1, -3.2])
    assert method.objectives()[0].streams == {"old_logprobs"}


def test_the_kl_of_the_reward_is_of_the_policy_that_sampled_and_against_the_reference() -> None:
    """It does not change while the policy moves within a rollout, nor has it a gradient."""
    method = plain(lam=1.0)
    step = step_of(method)
    first = counted(step["advantages"], step)
    now = (OLD + 0.1).requires_grad_()
    terms = method.objectives()[0].terms(Outputs(logprobs=now), step)
    assert counted(step["advantages"], step) == first
    assert not step["advantages"].requires_grad  # type: ignore[union-attr]
    assert terms.loss[step.mask_ET].tolist() == pytest.approx([-math.exp(0.1) * a for a in first])


@pytest.mark.parametrize("target", ["lambda", "td"])
def test_the_critics_target_is_stopped(target: Any) -> None:
    """(V − y)²/2 with y a number: the gradient of each value is its own error, none goes to the next value."""
    method = plain(gamma=0.9, lam=0.5, value_target=target)
    step = step_of(method)
    values = VALUES.clone().requires_grad_()
    method.objectives()[1].terms(Outputs(values=values), step).loss[:, 0].sum().backward()
    assert values.grad is not None
    assert values.grad[:, 1].tolist() == [0.0, 0.0]
    assert values.grad[:, 0].tolist() == pytest.approx((VALUES - step["targets"])[:, 0].tolist())


def test_a_completion_without_a_score_has_no_part_in_it() -> None:
    method = PPO(beta=0.0, group_size=2)
    batch = rollout([[1.0, math.nan]], [[2, 1]])
    batch = ready(method, batch, values=VALUES, old_logprobs=OLD)
    assert torch.isfinite(batch["advantages"]).all()  # type: ignore[arg-type]
