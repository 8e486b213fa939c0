import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles.advantages import outcome_advantages
from oracles.ragged import random_rewards
from sharpen.advantages import group_advantages

NAN = math.nan


def computed(rewards, groups, **settings):
    return group_advantages(torch.tensor(rewards, dtype=torch.float64), torch.tensor(groups), **settings).tolist()


def assert_same(actual, expected):
    torch.testing.assert_close(
        torch.tensor(actual, dtype=torch.float64),
        torch.tensor(expected, dtype=torch.float64),
        rtol=1e-6,
        atol=1e-12,
    )


def test_worked_table_with_ddof_1():
    # mean 5.0333, std 1.1590
    assert computed([3.8, 5.2, 6.1], [0, 0, 0]) == pytest.approx([-1.0641, 0.1438, 0.9203], abs=1e-4)


def test_worked_table_with_ddof_0():
    # mean 7.6667, std 1.2472
    assert computed([6, 8, 9], [0, 0, 0], ddof=0) == pytest.approx([-1.3363, 0.2673, 1.0690], abs=1e-4)


@pytest.mark.parametrize("std", ["group", "batch", "none"])
@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("eps", [0.0, 1e-4])
def test_random_groups_against_the_plain_loop(std, ddof, eps):
    for seed in range(40):
        rng = random.Random(seed)
        rewards, groups = [], []
        for group in range(rng.randint(1, 5)):
            size = rng.randint(2, 6)
            rewards += random_rewards(rng, size)
            groups += [group] * size
        order = rng.sample(range(len(groups)), len(groups))
        rewards, groups = [rewards[i] for i in order], [groups[i] for i in order]
        expected = outcome_advantages(rewards, groups, std=std, ddof=ddof, eps=eps)
        assert_same(computed(rewards, groups, std=std, ddof=ddof, eps=eps), expected)


members = st.lists(
    st.tuples(st.integers(0, 3), st.one_of(st.just(NAN), st.floats(-100, 100), st.sampled_from([0.0, 1.0]))),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(members=members, std=st.sampled_from(["group", "batch", "none"]))
def test_any_rewards_against_the_plain_loop(members, std):
    # Each group appears twice, so that none has the size 1 that is refused with ddof=1.
    groups = [group for group, _ in members for _ in range(2)]
    rewards = [value for _, reward in members for value in (reward, reward / 2 + 1)]
    expected = outcome_advantages(rewards, groups, std=std, eps=1e-3)
    assert_same(computed(rewards, groups, std=std, eps=1e-3), expected)


def test_a_balanced_binary_group_is_plus_and_minus_one():
    assert computed([1, 0, 0, 1], [0] * 4, ddof=0) == pytest.approx([1, -1, -1, 1])
    assert computed([1, 0, 0, 1], [0] * 4) == pytest.approx([x * math.sqrt(3 / 4) for x in (1, -1, -1, 1)])


def test_the_rarer_answer_of_a_binary_group_weighs_more():
    right, *wrong = computed([1, 0, 0, 0, 0, 0, 0, 0], [0] * 8, ddof=0)
    assert right == pytest.approx(math.sqrt(7))
    assert wrong == pytest.approx([-1 / math.sqrt(7)] * 7)


@pytest.mark.parametrize("std", ["group", "batch", "none"])
@pytest.mark.parametrize("reward", [0.0, 0.1, 1.0, -7.3, 1e9])
def test_equal_rewards_give_exactly_zero(std, reward):
    spread = [1.0, 2.0, 4.0]
    advantages = computed([reward] * 7 + spread, [0] * 7 + [1] * 3, std=std)
    assert advantages[:7] == [0.0] * 7
    assert all(advantage != 0 for advantage in advantages[7:])


@pytest.mark.parametrize("std", ["group", "batch", "none"])
def test_a_spread_within_rounding_gives_exactly_zero(std):
    assert computed([0.1 + 0.2, 0.3, 0.3], [0, 0, 0], std=std) == [0.0] * 3
    assert computed([1000.0, 1000.0005, 1000.0], [0, 0, 0], std=std) == [0.0] * 3
    assert computed([0.0, 5e-7, 0.0], [0, 0, 0], std=std) == [0.0] * 3
    assert all(computed([1e-3, 0.0], [0, 0], std=std))


def test_equal_float32_rewards_give_exactly_zero():
    rewards = torch.full((7,), 0.1)
    assert group_advantages(rewards, torch.zeros(7, dtype=torch.long)).tolist() == [0.0] * 7


def test_a_missing_reward_takes_no_part():
    with_it = computed([3.8, NAN, 5.2, 6.1, 1.0, NAN], [0, 0, 0, 0, 1, 1])
    without_it = computed([3.8, 5.2, 6.1], [0, 0, 0])
    assert with_it == pytest.approx([without_it[0], 0.0, without_it[1], without_it[2], 0.0, 0.0])


@pytest.mark.parametrize("std", ["group", "batch", "none"])
def test_nothing_but_missing_rewards(std):
    assert computed([NAN, NAN], [0, 0], std=std) == [0.0, 0.0]


def test_a_group_of_one_has_no_standard_deviation():
    with pytest.raises(ValueError):  # noqa: PT011
        computed([1.0, 2.0, 3.0], [0, 0, 1])


@pytest.mark.parametrize("options", [{"ddof": 0}, {"std": "none"}, {"std": "batch"}])
def test_a_group_of_one_is_its_own_baseline(options):
    assert computed([1.0, 2.0, 3.0], [0, 0, 1], **options)[2] == 0.0


def test_the_standard_deviation_of_the_batch_is_shared():
    advantages = computed([0, 1, 0, 4], [0, 0, 1, 1], std="batch")
    std = math.sqrt((1.25**2 + 0.25**2 + 1.25**2 + 2.75**2) / 3)
    assert advantages == pytest.approx([-0.5 / std, 0.5 / std, -2 / std, 2 / std])


def test_order_does_not_matter():
    rewards, groups = [1.0, 5.0, 2.0, 2.5, 0.0], [0, 1, 0, 1, 0]
    order = [3, 0, 4, 1, 2]
    shuffled = computed([rewards[i] for i in order], [groups[i] for i in order])
    straight = computed(rewards, groups)
    assert shuffled == pytest.approx([straight[i] for i in order])


@pytest.mark.parametrize(("shift", "scale"), [(10.0, 1.0), (-3.0, 0.01), (0.0, 250.0)])
def test_the_z_score_ignores_shift_and_scale(shift, scale):
    rewards = [0.3, 1.2, -0.7, 2.0]
    moved = [shift + scale * reward for reward in rewards]
    assert computed(moved, [0] * 4) == pytest.approx(computed(rewards, [0] * 4))
