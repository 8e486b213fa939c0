"""Where other libraries choose otherwise (`Method.differences`), what is chosen here, by hand."""

import math

import pytest
import torch
from hand_made import completion, group, losses, ready, rollout, rows

from sharpen.batch import Outputs
from sharpen.data.collate import collate
from sharpen.methods import resolve_method

LOG = math.log


@pytest.mark.parametrize(("rejected", "expected"), [(-1.0, (1.5 + 1 - 1) ** 2), (1.0, (1.5 - 1 - 1) ** 2)])
def test_ipo_sums_the_log_ratios_of_completions_of_different_lengths(rejected: float, expected: float) -> None:
    """h⁺ = 3 · 0.5 and 1/(2β) = 1. With h⁺ divided by its 3 tokens, both values would be 0.25 and 2.25."""
    method = resolve_method({"name": "dpo", "form": "ipo", "beta": 0.5})
    batch = collate([group("a", (completion(3, 4, 5), 1.0), (completion(6), 0.0))])
    reference = rows([-1, -1, -1], [-2])
    step = ready(method, batch, ref_logprobs=reference)
    logprobs = reference + rows([0.5, 0.5, 0.5], [rejected])
    assert losses(method, step, logprobs=logprobs)["policy"] == pytest.approx(expected)


def test_a_smoothed_label_is_the_mean_of_both_labels() -> None:
    """ε = 0.25, u = 2: −0.75 log σ(2) − 0.25 log σ(−2)."""
    method = resolve_method({"name": "dpo", "beta": 1.0, "label_smoothing": 0.25})
    batch = collate([group("a", (completion(3), 1.0), (completion(6), 0.0))])
    reference = rows([-1], [-2])
    step = ready(method, batch, ref_logprobs=reference)
    expected = 0.75 * LOG(1 + math.exp(-2)) + 0.25 * LOG(1 + math.exp(2))
    found = losses(method, step, logprobs=reference + rows([1], [-1]))["policy"]
    assert found == pytest.approx(expected)


@pytest.mark.parametrize(
    ("reduction", "weights"),
    [
        ("per_sequence", [1 / 2, 1 / 6, 1 / 6, 1 / 6]),
        ("constant", [1 / 20] * 4),
        ("tokens_of_group", [1 / 4] * 4),
    ],
)
def test_a_completion_that_is_out_of_the_loss_does_not_count_in_g(reduction: str, weights: list[float]) -> None:
    """Of four, one was cut off at 10 tokens and the reward of one failed: G' = 2, of 1 and 3 tokens."""
    method = resolve_method({"name": "grpo", "mask_truncated": True, "reduction": reduction})
    answers = (completion(3), 1.0), (completion(*range(4, 14), cut=True), 0.0), (completion(14), None)
    batch = collate([group("a", *answers, (completion(15, 16, 17), 0.0))], completion_limit=10)
    step = ready(method, batch)
    assert step["weights"][step.mask_ET].tolist() == pytest.approx(weights)
    # The one that was cut off counts in the mean of the three rewards: 1/3.
    assert step["advantages"][[0, 3], 0].tolist() == pytest.approx([2 / 3 * math.sqrt(3), -1 / 3 * math.sqrt(3)])


def test_the_entropy_of_a_token_has_the_weight_of_its_loss_term() -> None:
    """Entropies 2 of one completion and 0, 0, 3 of the other: (2 + 3/3)/2, and not the mean over tokens, 5/4."""
    method = resolve_method({"name": "grpo", "entropy_coef": 0.5})
    batch = rollout([[1, 0]], [[1, 3]])
    old = rows([-1], [-1, -1, -1])
    step = ready(method, batch, old_logprobs=old)
    with_entropy = losses(method, step, logprobs=old, entropy=rows([2], [0, 0, 3]))["policy"]
    without = losses(method, step, logprobs=old, entropy=rows([0], [0, 0, 0]))["policy"]
    assert with_entropy - without == pytest.approx(-0.5 * (2 + 3 / 3) / 2)


def test_nothing_is_added_to_a_standard_deviation() -> None:
    for name in ("grpo", "gspo", "dapo", "cispo"):
        advantages = ready(resolve_method({"name": name, "group_size": 2}), rollout([[1, 0]], [[1, 1]]))["advantages"]
        assert advantages[:, 0].tolist() == pytest.approx([math.sqrt(0.5), -math.sqrt(0.5)], rel=1e-12)
    # Whitening: 3, 1, 2 have the deviation 1 over n − 1.
    method = resolve_method({"name": "reinforce_plus_plus", "beta": 0.0})
    step = ready(method, rollout([[3.0], [1.0], [2.0]], [[1], [1], [1]]))
    assert step["advantages"][:, 0].tolist() == pytest.approx([1, -1, 0], rel=1e-12)


def test_rewards_are_not_clipped() -> None:
    step = ready(resolve_method({"name": "rloo", "group_size": 2}), rollout([[100.0, 0.0]], [[1, 1]]))
    assert step["advantages"][:, 0].tolist() == [100.0, -100.0]


@pytest.mark.parametrize(("name", "long"), [("gspo", 1 / 2), ("dapo", 9 / 10), ("grpo", 1 / 2)])
def test_what_a_long_completion_weighs_beside_a_short_one(name: str, long: float) -> None:
    """Of 1 and 9 tokens."""
    step = ready(resolve_method({"name": name, "group_size": 2, "overlong_share": 0.0}), rollout([[1, 0]], [[1, 9]]))
    weights_E = (step["weights"] * step.mask_ET).sum(dim=1)
    assert weights_E.tolist() == pytest.approx([1 - long, long])


@pytest.mark.parametrize(("reduction", "first"), [("tokens_of_group", 1 / 2), ("tokens_of_batch", 2 / 10)])
def test_the_tokens_of_a_group_and_those_of_the_batch(reduction: str, first: float) -> None:
    """Two groups, of 2 and of 8 tokens."""
    method = resolve_method({"name": "grpo", "group_size": 2, "reduction": reduction})
    step = ready(method, rollout([[1, 0], [1, 0]], [[1, 1], [3, 5]]))
    assert (step["weights"] * step.mask_ET)[:2].sum().item() == pytest.approx(first)


@pytest.mark.parametrize(("estimator", "coefficient"), [("k3", 2 - 1), ("weighted_k3", LOG(2))])
def test_what_the_kl_adds_to_the_gradient_coefficient_at_ratio_1(estimator: str, coefficient: float) -> None:
    """One token with r = π_ref/π = 2, β = 1 and advantage 0."""
    method = resolve_method({"name": "grpo", "beta": 1.0, "kl": {"estimator": estimator}})
    batch = rollout([[0.0, 0.0]], [[1, 1]])
    now = rows([-2], [-2]).requires_grad_()
    step = ready(method, batch, old_logprobs=now.detach(), ref_logprobs=now.detach() + LOG(2))
    (objective,) = method.objectives()
    loss = (step["weights"] * objective.terms(Outputs(logprobs=now), step).loss).sum()
    (gradient,) = torch.autograd.grad(-loss, now)
    assert gradient[:, 0].tolist() == pytest.approx([coefficient / 2] * 2)


def test_reinforce_has_no_ratio_to_clip() -> None:
    """However far the policy has moved: −A log π, A = ±1, summed over the tokens."""
    method = resolve_method({"name": "rloo", "group_size": 2})
    step = ready(method, rollout([[1, 0]], [[2, 1]]), old_logprobs=rows([-9, -9], [-9]))
    found = losses(method, step, logprobs=rows([-1, -2], [-4]))["policy"]
    assert found == pytest.approx(-(1 * (-1 - 2) - 1 * -4) / 2)
