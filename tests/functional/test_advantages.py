import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from oracles import advantages as oracle
from oracles.advantages import outcome_advantages
from oracles.ragged import padded, padded_mask, ragged, random_rewards
from sharpen.functional.advantages import (
    accepted,
    decoupled_advantages,
    group_advantages,
    leave_one_out,
    soft_overlong,
    whiten,
)

NAN = math.nan


def computed(rewards, groups, **settings):
    return group_advantages(torch.tensor(rewards, dtype=torch.float64), torch.tensor(groups), **settings).tolist()


def random_groups(seed):
    """Interleaved groups of 2 to 6: equal, binary, any and missing rewards."""
    rng = random.Random(seed)
    rewards, groups = [], []
    for group in range(rng.randint(1, 5)):
        size = rng.randint(2, 6)
        rewards += random_rewards(rng, size)
        groups += [group] * size
    order = rng.sample(range(len(groups)), len(groups))
    return [rewards[i] for i in order], [groups[i] for i in order]


def assert_same(actual, expected):
    torch.testing.assert_close(
        torch.tensor(actual, dtype=torch.float64),
        torch.tensor(expected, dtype=torch.float64),
        rtol=1e-6,
        atol=1e-12,
    )


@pytest.mark.parametrize("std", ["group", "batch", "none"])
@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("eps", [0.0, 1e-4])
def test_random_groups_against_the_plain_loop(std, ddof, eps):
    for seed in range(40):
        rewards, groups = random_groups(seed)
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
    assert computed([1000.0, 1000.0 * (1 + 2**-50), 1000.0], [0, 0, 0], std=std) == [0.0] * 3
    for rewards in ([1000.0, 1000.0005], [0.0, 5e-7], [1e-3, 0.0]):
        assert all(computed(rewards, [0, 0], std=std))


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


def test_leave_one_out_against_the_plain_loop():
    for seed in range(40):
        rewards, groups = random_groups(seed)
        found = leave_one_out(torch.tensor(rewards, dtype=torch.float64), torch.tensor(groups)).tolist()
        assert_same(found, oracle.leave_one_out(rewards, groups))


def test_leave_one_out_by_hand():
    rewards = torch.tensor([1.0, 2.0, 6.0, NAN, 5.0, NAN, 4.0, 4.0], dtype=torch.float64)
    found = leave_one_out(rewards, torch.tensor([0, 0, 0, 0, 1, 1, 2, 2]))
    assert found.tolist() == [-3.0, -1.5, 4.5, 0.0, 0.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("size", [2, 3, 8])
def test_leave_one_out_is_the_centred_reward_times_g_over_g_less_1(size):
    rng = random.Random(size)
    rewards = [rng.gauss(0, 3) for _ in range(size)]
    found = leave_one_out(torch.tensor(rewards, dtype=torch.float64), torch.zeros(size, dtype=torch.long))
    centred = [reward - sum(rewards) / size for reward in rewards]
    assert found.tolist() == pytest.approx([size / (size - 1) * x for x in centred])


def test_leave_one_out_needs_another():
    with pytest.raises(ValueError, match="group of one"):
        leave_one_out(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([0, 0, 1]))


@pytest.mark.parametrize("centre", [True, False])
def test_whitening_against_the_plain_loop(centre):
    for seed in range(20):
        batch = ragged(seed)
        found = whiten(padded(batch.policy), padded_mask(batch.mask), centre=centre)
        assert_same(found.tolist(), padded(oracle.whitened(batch.policy, batch.mask, centre=centre), fill=0.0).tolist())


def test_whitening_by_hand():
    values = torch.tensor([[1.0, 3.0], [50.0, 5.0]], dtype=torch.float64)
    mask = torch.tensor([[True, True], [False, True]])
    assert whiten(values, mask).tolist() == [[-1.0, 0.0], [0.0, 1.0]]
    assert whiten(values, mask, centre=False).tolist() == [[2.0, 3.0], [0.0, 4.0]]


def test_nothing_to_whiten():
    """Equal values, a single one, none: 0, and unchanged where the mean stays."""
    everything = torch.ones(1, 3, dtype=torch.bool)
    equal = torch.tensor([[0.1 + 0.2, 0.3, 0.3]], dtype=torch.float64)
    assert whiten(equal, everything).tolist() == [[0.0, 0.0, 0.0]]
    torch.testing.assert_close(whiten(equal, everything, centre=False), equal)
    one = torch.tensor([[False, True, False]])
    assert whiten(torch.tensor([[1.0, 7.0, 2.0]]), one).tolist() == [[0.0, 0.0, 0.0]]
    assert whiten(torch.tensor([[1.0, 7.0, 2.0]]), one, centre=False).tolist() == [[0.0, 7.0, 0.0]]
    assert whiten(torch.tensor([[1.0, 7.0, 2.0]]), ~everything).tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize("ddof", [0, 1])
def test_decoupled_rewards_against_the_plain_loop(ddof):
    for seed in range(30):
        rng = random.Random(seed)
        first, groups = random_groups(seed)
        parts = [[x, rng.choice([0.0, 1.0]), rng.choice([NAN, rng.gauss(0, 1), 0.5])] for x in first]
        parts = [row if rng.random() < 0.8 else [NAN] * 3 for row in parts]
        weights = [rng.uniform(0.1, 2) for _ in range(3)]
        found = decoupled_advantages(
            torch.tensor(parts, dtype=torch.float64), torch.tensor(groups), torch.tensor(weights).double(), ddof=ddof
        )
        weights = torch.tensor(weights).double().tolist()
        assert_same(found.tolist(), oracle.decoupled(parts, groups, weights, ddof=ddof))


# Two groups of two; summed, their rewards are (0, 1) and (0, 2).
PARTS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 0.0], [1.0, 1.0]], dtype=torch.float64)
PAIRS = torch.tensor([0, 0, 1, 1])


def test_decoupled_rewards_separate_what_the_z_score_of_the_sum_does_not():
    """S = ∓½√2, ∓√2 with std S = √(5/3): the second group's advantage is twice the first's."""
    together = group_advantages(PARTS.sum(1), PAIRS)
    assert together[1].item() == pytest.approx(together[3].item())
    apart = decoupled_advantages(PARTS, PAIRS, torch.ones(2, dtype=torch.float64))
    unit = math.sqrt(0.5) / math.sqrt(5 / 3)
    assert apart.tolist() == pytest.approx([-unit, unit, -2 * unit, 2 * unit])


def test_a_flat_group_keeps_exactly_0_beside_others():
    """Taking the mean of the batch off, which is 0 but for rounding, would give it an advantage of 1e-17."""
    weights = torch.tensor([1.0, 0.0], dtype=torch.float64)
    groups = torch.tensor([0, 0, 0, 1, 1, 1])
    for seed in range(10):
        parts = torch.full((6, 2), 0.1, dtype=torch.float64)
        parts[:3] = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        found = decoupled_advantages(parts, groups, weights)
        assert found[3:].tolist() == [0.0, 0.0, 0.0]
        # Of the six, only the three z-scores of the first reward are left, whose squares sum to 2.
        z_scores = group_advantages(parts[:3, 0], groups[:3]) / math.sqrt(2 / 5)
        torch.testing.assert_close(found[:3], z_scores)
    assert decoupled_advantages(torch.full((4, 2), 3.0), PAIRS, torch.ones(2)).tolist() == [0.0] * 4


def test_a_group_of_one_cannot_be_decoupled():
    with pytest.raises(ValueError, match="group of one"):
        decoupled_advantages(PARTS, torch.tensor([0, 0, 0, 1]), torch.ones(2))


# Two groups of four completions; 9 stands where nothing is trained on.
TOKENS = torch.tensor([[1, 2, 9], [1, 2, 3], [1, 2, 9], [4, 9, 9], [1, 2, 9], [5, 6, 9], [7, 9, 9], [8, 9, 9]])
LENGTHS = torch.tensor([2, 3, 2, 1, 2, 2, 1, 0])
MASK = torch.arange(3) < LENGTHS[:, None]
FOURS = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
RIGHT = torch.tensor([1.0, 1.0, 1.0, 0.4, 1.0, NAN, 0.5, 1.0])


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"threshold": 1.0, "at_most": None}, [1, 1, 0, 0, 1, 0, 0, 0]),
        ({"threshold": 0.5, "at_most": None}, [1, 1, 0, 0, 1, 0, 1, 0]),
        ({"threshold": 0.4, "at_most": 1}, [1, 0, 0, 0, 1, 0, 0, 0]),
        ({"threshold": 0.4, "at_most": 2}, [1, 1, 0, 0, 1, 0, 1, 0]),
        ({"threshold": 0.4, "at_most": 3, "unique": False}, [1, 1, 1, 0, 1, 0, 1, 0]),
        ({"threshold": 0.4, "at_most": None, "unique": False}, [1, 1, 1, 1, 1, 0, 1, 0]),
        ({"threshold": 2.0, "at_most": 2}, [0] * 8),
    ],
)
def test_what_rejection_sampling_keeps(settings, kept):
    """Identical completions count once per group, up to the last trained token; NaN and nothing to train on never."""
    padding = torch.where(MASK, TOKENS, torch.arange(24).reshape(8, 3))
    for tokens in (TOKENS, padding):
        assert accepted(RIGHT, FOURS, tokens, MASK, **settings).int().tolist() == kept


def test_a_tools_reply_tells_completions_apart():
    tokens, mask = torch.tensor([[1, 2, 3], [1, 5, 3]]), torch.tensor([[True, False, True]] * 2)
    keep = accepted(torch.ones(2), torch.zeros(2, dtype=torch.long), tokens, mask, threshold=1.0, at_most=None)
    assert keep.tolist() == [True, True]


def test_the_soft_punishment_of_length():
    """The paper's numbers: free up to 16384 tokens, −1 from 20480 on."""
    lengths = torch.tensor([1, 16384, 16385, 18432, 20480, 20481, 99999])
    found = soft_overlong(lengths, limit=20480, cache=4096)
    assert found.tolist() == pytest.approx([0, 0, -1 / 4096, -0.5, -1, -1, -1])


@pytest.mark.parametrize("cache", [0, -1, 21])
def test_a_cache_outside_the_limit_is_refused(cache):
    with pytest.raises(ValueError, match="cache"):
        soft_overlong(torch.tensor([3]), limit=20, cache=cache)
