import math
import random

import pytest
import torch

from oracles import returns as oracle
from oracles.ragged import padded, padded_mask, ragged
from sharpen.functional.advantages import process_advantages

NAN = math.nan


def random_steps(batch, seed):
    """Per sequence the last token of each step and its reward: none, one, several; equal in some groups."""
    rng = random.Random(seed)
    equal_groups = {group for group in set(batch.groups) if rng.random() < 0.3}
    result = []
    for row, group in zip(batch.policy, batch.groups, strict=True):
        ends = [t for t in range(len(row)) if rng.random() < rng.choice([0.0, 0.3, 0.6])]
        result.append({t: 0.1 if group in equal_groups else rng.choice([0.0, 1.0, rng.gauss(0, 2)]) for t in ends})
    return result


def as_rows(steps, lengths):
    return [[ends.get(t, NAN) for t in range(length)] for ends, length in zip(steps, lengths, strict=True)]


@pytest.mark.parametrize("mode", ["to_go", "own"])
@pytest.mark.parametrize("std", ["group", "none"])
@pytest.mark.parametrize(("ddof", "eps"), [(1, 0.0), (0, 0.0), (1, 1e-4)])
def test_against_the_plain_sums(mode, std, ddof, eps):
    settings = {"mode": mode, "std": std, "ddof": ddof, "eps": eps}
    for seed in range(25):
        batch = ragged(seed)
        steps = random_steps(batch, seed)
        rewards = padded(as_rows(steps, [len(row) for row in batch.policy]), fill=NAN)
        found = process_advantages(rewards, padded_mask(batch.mask), torch.tensor(batch.groups), **settings)
        expected = oracle.process_advantages(steps, batch.mask, batch.groups, **settings)
        torch.testing.assert_close(found, padded(expected, fill=0.0), rtol=1e-6, atol=1e-12)


# Two completions of one group, their steps' rewards 1, 3 and 2: mean 2, std 1.
STEPS = torch.tensor([[NAN, 1.0, NAN, 3.0], [NAN, NAN, 2.0, NAN]], dtype=torch.float64)
WHOLE = torch.tensor([[True] * 4, [True] * 4])
ONE_GROUP = torch.tensor([0, 0])


def test_by_hand():
    assert process_advantages(STEPS, WHOLE, ONE_GROUP).tolist() == [[0, 0, 1, 1], [0, 0, 0, 0]]
    assert process_advantages(STEPS, WHOLE, ONE_GROUP, mode="own").tolist() == [[-1, -1, 1, 1], [0, 0, 0, 0]]
    population = math.sqrt(3 / 2)
    found = process_advantages(STEPS, WHOLE, ONE_GROUP, mode="own", ddof=0)
    assert found[0].tolist() == pytest.approx([-population, -population, population, population])


@pytest.mark.parametrize("mode", ["to_go", "own"])
def test_tokens_after_the_last_step_and_tokens_that_are_not_trained_on_get_nothing(mode):
    steps = torch.tensor([[NAN, 5.0, NAN, NAN], [NAN, 1.0, NAN, NAN]], dtype=torch.float64)
    mask = torch.tensor([[True, False, True, True], [True, True, True, True]])
    half = math.sqrt(0.5)
    expected = torch.tensor([[half, 0, 0, 0], [-half, -half, 0, 0]], dtype=torch.float64)
    torch.testing.assert_close(process_advantages(steps, mask, ONE_GROUP, mode=mode), expected)


@pytest.mark.parametrize("mode", ["to_go", "own"])
@pytest.mark.parametrize("std", ["group", "none"])
def test_a_pool_without_spread_teaches_exactly_nothing(mode, std):
    for steps in (
        [[NAN, 0.3, NAN, 0.1 + 0.2], [NAN, NAN, NAN, 0.3]],
        [[NAN, 7.0, NAN, NAN], [NAN] * 4],
        [[NAN] * 4] * 2,
    ):
        found = process_advantages(torch.tensor(steps, dtype=torch.float64), WHOLE, ONE_GROUP, mode=mode, std=std)
        assert found.tolist() == [[0.0] * 4] * 2


def test_groups_are_pooled_apart():
    steps = torch.cat([STEPS, 100 * STEPS + 7])
    found = process_advantages(steps, torch.cat([WHOLE, WHOLE]), torch.tensor([1, 1, 0, 0]))
    torch.testing.assert_close(found[2:], found[:2])
