"""Which rewards are equal: those that differ by the rounding of how they were made, and no others."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor

from sharpen.batch import Batch
from sharpen.data.collate import collate
from sharpen.functional.advantages import (
    decoupled_advantages,
    group_advantages,
    leave_one_out,
    process_advantages,
    whiten,
    zero_spread,
)
from sharpen.functional.rounding import rounding_of_sum
from sharpen.methods import CISPO, DAPO, GRPO, PPO, RLOO, Method, Reinforce, ReinforcePlusPlus
from sharpen.methods.kl import KL
from sharpen.rewards import FunctionReward, WeightedSum
from sharpen.training.metrics import rollout_metrics
from sharpen.types import Group, Prompt, Score, Trajectory, single_turn
from tiny_models import unscored, with_given

EPS = 2.0**-52
ONE = torch.zeros(4, dtype=torch.long)
FLAT = [0.0] * 4


def double(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def completion(*ids: int) -> Trajectory:
    return single_turn((1, 2), ids, " ".join(map(str, ids)))


def group_of(*rewards: float) -> Group:
    completions = tuple(completion(3 + i, 1) for i in range(len(rewards)))
    return Group(Prompt("a", (1, 2), "a", {}), completions).scored([Score(r) for r in rewards])


def scored(weights: dict[str, float], *values: tuple[float, ...]) -> Batch:
    """Four completions with a weighted sum of named rewards, as a recipe makes it."""
    bare = unscored(group_of(*FLAT))
    columns = {name: [row[k] for row in values] for k, name in enumerate(weights)}

    def reward_of(name: str) -> FunctionReward:
        known = {c.text: value for c, value in zip(bare.trajectories, columns[name], strict=True)}
        return FunctionReward(lambda completion: known[completion], name)

    [scores] = WeightedSum([(reward_of(name), weight) for name, weight in weights.items()]).score([bare])
    return collate([bare.scored(scores)])


def made(method: Method, batch: Batch, **given: Any) -> list[float]:
    """The advantage of each completion's first token."""
    start = {name: coefficient.initial for name, coefficient in method.coefficients().items()}
    advantages_ET = method.advantages(with_given(batch, coefficients=start, **given))
    return advantages_ET[:, 0].tolist()


# By hand. Two of one reward and two of another are ±√3/2 of n − 1 = 3, and ±1 of n = 4.


@pytest.mark.parametrize(
    ("low", "high"),
    [(1e6, 1e6 + 1), (0.0, 1e-6), (0.0, 1e-300), (1e12, 1e12 + 1), (-1e-9, 1e-9), (1000.0, 1000.0005), (1e-7, 2e-7)],
)
def test_rewards_that_differ_have_the_advantage_of_the_formula(low: float, high: float) -> None:
    rewards = double(low, high, low, high)
    if high > 1e-150:
        half = math.sqrt(3) / 2
        assert group_advantages(rewards, ONE).tolist() == pytest.approx([-half, half, -half, half], rel=1e-3)
        assert group_advantages(rewards, ONE, ddof=0).tolist() == pytest.approx([-1, 1, -1, 1], rel=1e-3)
    difference = high - low
    assert leave_one_out(rewards, ONE).tolist() == pytest.approx(
        [x * difference * 2 / 3 for x in (-1, 1, -1, 1)], rel=1e-3
    )
    assert not zero_spread(rewards, ONE).item()


@pytest.mark.parametrize(
    "rewards",
    [
        [0.1 + 0.2, 0.3, 0.3, 0.3],
        [0.7 + 0.2 + 0.1, 1.0, 1.0, 0.2 + 0.1 + 0.7],
        [sum([0.1] * 10), 1.0, 1.0, 1.0],
        [1e6 * (0.1 + 0.2), 3e5, 3e5, 3e5],
        [-1e-30, -1e-30, -1e-30 * (1 + 8 * EPS), -1e-30],
        [0.0, 0.0, -0.0, 0.0],
    ],
)
@pytest.mark.parametrize("std", ["group", "batch", "none"])
def test_rewards_that_differ_by_rounding_have_none(rewards: list[float], std: Any) -> None:
    assert group_advantages(double(*rewards), ONE, std=std).tolist() == FLAT
    assert leave_one_out(double(*rewards), ONE).tolist() == FLAT
    assert zero_spread(double(*rewards), ONE).item()
    assert whiten(double(*rewards)[:, None], torch.ones(4, 1, dtype=torch.bool)).flatten().tolist() == FLAT
    steps = double(*rewards)[:, None]
    assert process_advantages(steps, torch.ones(4, 1, dtype=torch.bool), ONE).flatten().tolist() == FLAT


def test_the_edge_of_rounding_is_8_units_of_the_largest_in_the_type_of_the_tensor() -> None:
    for dtype, eps in ((torch.float64, EPS), (torch.float32, 2.0**-23)):
        for size in (1.0, 2.0**40, 2.0**-40):
            for units, flat in ((8, True), (9, False)):
                rewards = torch.tensor([1 - units * eps, 1, 1, 1], dtype=torch.float64).mul(size).to(dtype)
                assert zero_spread(rewards, ONE).item() is flat
                assert (group_advantages(rewards, ONE).tolist() == FLAT) is flat
                assert (whiten(rewards[:, None], torch.ones(4, 1, dtype=torch.bool)).flatten().tolist() == FLAT) is flat


@pytest.mark.parametrize("seed", range(40))
def test_rewards_of_any_size_against_exact_fractions(seed: int) -> None:
    """The mean and the variance without rounding. Float64 knows r − mean r to G ε of the largest |r|."""
    rng = random.Random(seed)
    rewards: list[float] = []
    groups: list[int] = []
    for group in range(6):
        size, level = rng.choice([2, 3, 8]), rng.choice([0.0, 1.0, -1.0]) * 10.0 ** rng.randint(-12, 12)
        step = 10.0 ** rng.randint(-12, 12)
        rewards += [level + step * rng.choice([0, 0, 1, rng.random()]) for _ in range(size)]
        groups += [group] * size
    found = group_advantages(double(*rewards), torch.tensor(groups)).tolist()
    for group in set(groups):
        own = [Fraction(r) for r, g in zip(rewards, groups, strict=True) if g == group]
        got = [a for a, g in zip(found, groups, strict=True) if g == group]
        largest, mean = max(map(abs, own)), sum(own) / len(own)
        variance = sum((r - mean) ** 2 for r in own) / (len(own) - 1)
        if max(own) - min(own) <= 8 * Fraction(1, 2**52) * largest:
            assert got == [0.0] * len(own)
            continue
        spread = Fraction(math.sqrt(variance))
        known_to = float(2 * len(own) * Fraction(1, 2**52) * largest / spread)
        assert got == pytest.approx([float((r - mean) / spread) for r in own], rel=1e-9 + known_to, abs=known_to)


# Weighted sums, whose rounding is that of what they are the sum of


def test_a_weighted_sum_is_equal_however_it_comes_about() -> None:
    """1 · 0.1 + 2 · 0.1 is not 1 · 0.3 in float64."""
    batch = scored({"a": 1.0, "b": 2.0}, (0.1, 0.1), (0.3, 0.0), (0.1, 0.1), (0.3, 0.0))
    assert batch.rewards_E[0] != batch.rewards_E[1]
    for method in (GRPO(group_size=4), RLOO(), CISPO(group_size=4), Reinforce(baseline="group_mean")):
        assert made(method, batch) == FLAT


def test_summands_that_cancel_leave_their_rounding_behind() -> None:
    """1000.1 − 1000 and 0.1 − 0 are 2·10⁻¹⁴ apart: nothing beside 1000, and much beside 0.1."""
    batch = scored({"a": 1.0, "b": -1.0}, (1000.1, 1000.0), (0.1, 0.0), (1000.1, 1000.0), (0.1, 0.0))
    assert 1e-14 < (batch.rewards_E[0] - batch.rewards_E[1]).item() < 1e-13
    assert zero_spread(batch.rewards_E, batch.group_E).tolist() == [False]
    assert rounding_of_sum(batch.rewards_E, batch.rewards_EK, batch.reward_weights).tolist() == pytest.approx(
        [8 * EPS * x for x in (2000.1, 0.1, 2000.1, 0.1)]
    )
    methods: list[Method] = [
        GRPO(group_size=4),
        GRPO(group_size=4, std="batch"),
        DAPO(group_size=4, overlong_share=0.0),
        RLOO(),
        Reinforce(baseline="group_mean"),
        ReinforcePlusPlus(beta=0.0),
        PPO(beta=0.0, lam=1.0),
    ]
    for method in methods:
        assert made(method, batch, values=torch.zeros(4, 2)) == FLAT
    bare = group_of(*FLAT).scored([Score(r.item()) for r in batch.rewards_E])
    assert made(GRPO(group_size=4), collate([bare])) != FLAT


def test_what_is_measured_has_the_same_rule() -> None:
    for rewards, flat in (((1e6, 1e6 + 1), 0.0), ((0.3, 0.1 + 0.2), 1.0), ((0.0, 1e-6), 0.0)):
        group = group_of(*rewards)
        assert rollout_metrics([group], collate([group]))["groups/zero_spread"] == flat


def test_an_overlong_punishment_is_known_in_float32_only() -> None:
    """Limit 13, the last 10 are punished: 1 − 1/10 of 4 tokens, and 0.9 of 3 without punishment."""
    completions = tuple(completion(*range(3, 3 + n)) for n in (4, 3, 4, 3))
    group = Group(Prompt("a", (1, 2), "a", {}), completions).scored([Score(r) for r in (1.0, 0.9, 1.0, 0.9)])
    batch = collate([group], completion_limit=13)
    method = GRPO(group_size=4, overlong_share=10 / 13)
    assert made(method, batch) == FLAT
    longest = replace(completion(3, 4, 5, 6, 7), score=Score(1.0))
    longer = collate([replace(group, trajectories=(longest, *group.trajectories[1:]))], completion_limit=13)
    assert made(method, longer) == pytest.approx([-1.5, 0.5, 0.5, 0.5], rel=1e-6)


# Several rewards, each on its own


def test_small_weights_are_weights_and_scores_that_cancel_are_none() -> None:
    """z-scores of ∓½√2 and ½√2; with both weights 10⁻⁹ the result is the same as with 1, with +1 and −1 it is 0."""
    parts = torch.tensor([[0.0, 0.0], [1.0, 3.0], [5.0, 1.0], [6.0, 2.0]], dtype=torch.float64)
    pairs = torch.tensor([0, 0, 1, 1])
    usual = decoupled_advantages(parts, pairs, double(1.0, 1.0))
    assert usual.tolist() == pytest.approx([x * math.sqrt(3) / 2 for x in (-1, 1, -1, 1)])
    torch.testing.assert_close(decoupled_advantages(parts, pairs, double(1e-9, 1e-9)), usual, rtol=1e-12, atol=0)
    torch.testing.assert_close(decoupled_advantages(1e-9 * parts, pairs, double(1.0, 1.0)), usual, rtol=1e-9, atol=0)
    thirds = torch.tensor([[0.1, 0.3], [0.7, 2.1], [0.2, 0.6], [0.4, 1.2]], dtype=torch.float64)
    for groups in (ONE, pairs):
        assert decoupled_advantages(thirds, groups, double(1.0, -1.0)).tolist() == FLAT


def test_a_group_whose_scores_cancel_is_flat_beside_one_that_teaches() -> None:
    parts = torch.tensor([[0.1, 0.3], [0.7, 2.1], [0.2, 0.6], [0.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    found = decoupled_advantages(parts, torch.tensor([0, 0, 0, 1, 1]), double(1.0, -1.0)).tolist()
    assert found[:3] == [0.0] * 3
    # S = ∓½√2, whose squares sum to 1, over √(1/4).
    assert found[3:] == pytest.approx([-math.sqrt(2), math.sqrt(2)])


# What was made of a model's float32


def noisy(size: float) -> Tensor:
    """Log-probabilities of float32 in which the last of 24 bits differ."""
    generator = torch.Generator().manual_seed(3)
    return -size * (1 + 4 * 2.0**-23 * (torch.rand(4, 2, generator=generator) - 0.5))


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3", "exact"])
def test_a_policy_that_is_its_reference_pays_no_kl_that_could_be_made_an_advantage_of(estimator: Any) -> None:
    """All rewards 0, as of a first step without one right answer: what is left is noise of 10⁻⁷."""
    batch = collate([group_of(*FLAT)])
    given = {
        "old_logprobs": torch.full((4, 2), -2.0),
        "ref_logprobs": noisy(2.0),
        "kl": noisy(2.0) + 2.0,
        "values": torch.zeros(4, 2),
    }
    kl = KL(estimator=estimator, placement="reward")
    for method in (
        GRPO(group_size=4, beta=0.1, kl=kl),
        RLOO(beta=0.1, kl=kl),
        PPO(beta=0.1, kl=kl, whiten_advantages=True),
        ReinforcePlusPlus(beta=0.1, kl=kl),
    ):
        assert method.kl_cost(with_given(batch, coefficients={"beta": 0.1}, **given)).any()
        assert made(method, batch, **given) == FLAT


def test_a_kl_that_is_more_than_noise_makes_the_advantage_of_the_formula() -> None:
    """β (log π_old − log π_ref) = 0.1 · 10⁻³ of two of four completions, whose rewards are all 0."""
    batch = collate([group_of(*FLAT)])
    old = torch.full((4, 2), -2.0)
    reference = old - torch.tensor([[1e-3, 0.0], [0.0, 0.0]] * 2)
    kl = KL(estimator="k1", placement="reward")
    half = math.sqrt(3) / 2
    given = {"old_logprobs": old, "ref_logprobs": reference, "values": torch.zeros(4, 2)}
    assert made(GRPO(group_size=4, beta=0.1, kl=kl), batch, **given) == pytest.approx([-half, half] * 2, rel=1e-3)
    # Of eight tokens two have −10⁻⁴ to go, six 0: mean −¼, squares 2 · 9/16 + 6/16 over 7, in units of 10⁻⁴.
    std = math.sqrt(1.5 / 7)
    whitened = [-0.75 / std, 0.25 / std] * 2
    assert made(ReinforcePlusPlus(beta=0.1, kl=kl), batch, **given) == pytest.approx(whitened, rel=1e-3)
    assert made(PPO(beta=0.1, kl=kl, lam=1.0), batch, **given) == pytest.approx(whitened, rel=1e-3)


def test_a_critic_that_is_right_but_for_rounding_leaves_no_advantage() -> None:
    """R = 3.7 and V = 3.7 in float32, off by its last bit here and there; then R of 10⁻⁸, which is not noise."""
    batch = collate([group_of(3.7, 3.7, 3.7, 3.7)])
    values_ET = torch.full((4, 2), 3.7)
    values_ET[0, 0] += 2.0**-22
    values_ET[2, 1] -= 2.0**-22
    assert made(PPO(beta=0.0, lam=1.0), batch, values=values_ET) == FLAT
    small = collate([group_of(1e-8, 0.0, 1e-8, 0.0)])
    found = made(PPO(beta=0.0, lam=1.0), small, values=torch.zeros(4, 2))
    # Eight tokens, half of each: ±½ over √(8 · ¼ / 7).
    assert found == pytest.approx([x * math.sqrt(7 / 8) for x in (1, -1, 1, -1)])
