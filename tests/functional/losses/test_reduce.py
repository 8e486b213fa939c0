import pytest
import torch

from oracles import reduction
from oracles.ragged import padded, padded_mask, ragged
from sharpen.functional.losses import reduce

LENGTH = 16


def fast(name, mask_ET, group_E, **options):
    """One call for the four functions, whose arguments differ."""
    if name == "tokens_of_batch":
        return reduce.tokens_of_batch(mask_ET, **options)
    if name == "constant_length":
        return reduce.constant_length(mask_ET, group_E, LENGTH, **options)
    return getattr(reduce, name)(mask_ET, group_E, **options)


def slow(name):
    function = getattr(reduction, name)
    if name == "constant_length":
        return lambda terms, mask, groups: function(terms, mask, groups, LENGTH)
    return function


NAMES = ["per_sequence", "tokens_of_group", "tokens_of_batch", "constant_length"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(10))
def test_weights_against_the_nested_sums(name, seed):
    batch = ragged(seed)
    mask, groups = padded_mask(batch.mask), torch.tensor(batch.groups)
    expected = padded(reduction.weights(slow(name), batch.mask, batch.groups), fill=0.0)
    weights = fast(name, mask, groups, dtype=torch.float64)
    torch.testing.assert_close(weights, expected, rtol=1e-12, atol=0)
    assert (weights[~mask] == 0).all()
    single = fast(name, mask, groups)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", NAMES[:3])
@pytest.mark.parametrize("seed", range(5))
def test_a_mean_has_weights_that_sum_to_one(name, seed):
    batch = ragged(seed)
    weights = fast(name, padded_mask(batch.mask), torch.tensor(batch.groups), dtype=torch.float64)
    assert weights.sum().item() == pytest.approx(1, rel=1e-12)


# Two groups; the second has a sequence without a token to train on.
MASK = torch.tensor([[1, 1, 1, 1], [1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], dtype=torch.bool)
TOTALS = {
    "per_sequence": [1 / 4, 1 / 4, 1 / 2, 0],
    "tokens_of_group": [4 / 10, 1 / 10, 1 / 2, 0],
    "tokens_of_batch": [4 / 7, 1 / 7, 2 / 7, 0],
    "constant_length": [4 / 16 / 4, 1 / 16 / 4, 2 / 16 / 2, 0],
}


@pytest.mark.parametrize("name", NAMES)
def test_what_each_sequence_weighs(name):
    weights = fast(name, MASK, torch.tensor([0, 0, 1, 1]), dtype=torch.float64)
    assert weights.sum(1).tolist() == pytest.approx(TOTALS[name])


@pytest.mark.parametrize("name", NAMES)
def test_a_group_without_a_token_is_not_there(name):
    more_mask = torch.cat([MASK, torch.zeros(3, 4, dtype=torch.bool)])
    more_groups = torch.tensor([0, 0, 1, 1, 2, 2, 1])
    weights = fast(name, more_mask, more_groups, dtype=torch.float64)
    assert weights.sum(1).tolist() == pytest.approx(TOTALS[name] + [0, 0, 0])


@pytest.mark.parametrize("name", NAMES)
def test_nothing_to_train_on_gives_zeros(name):
    weights = fast(name, torch.zeros(2, 3, dtype=torch.bool), torch.tensor([0, 0]))
    assert torch.equal(weights, torch.zeros(2, 3))


@pytest.mark.parametrize("name", NAMES)
def test_order_and_padding_do_not_matter(name):
    batch = ragged(3)
    mask, groups = padded_mask(batch.mask), torch.tensor(batch.groups)
    weights = fast(name, mask, groups, dtype=torch.float64)
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(0))
    shuffled = fast(name, mask[order], groups[order], dtype=torch.float64)
    torch.testing.assert_close(shuffled, weights[order], rtol=1e-12, atol=0)
    wider = torch.nn.functional.pad(mask, (0, 5))
    torch.testing.assert_close(
        fast(name, wider, groups, dtype=torch.float64)[:, : mask.shape[1]], weights, rtol=1e-12, atol=0
    )


# Three groups: two of three sequences present, one of one, none.
PRESENT = torch.tensor([True, False, True, True, False])
GROUPS = torch.tensor([0, 0, 0, 1, 2])


def test_the_mean_over_sequences_then_groups():
    weights = reduce.sequences(PRESENT, GROUPS, dtype=torch.float64)
    assert weights.tolist() == [1 / 4, 0, 1 / 4, 1 / 2, 0]
    assert reduce.sequences(~PRESENT & False, GROUPS).tolist() == [0.0] * 5


@pytest.mark.parametrize("seed", range(5))
def test_the_weight_of_a_sequence_is_that_of_its_tokens_together(seed):
    batch = ragged(seed)
    mask, groups = padded_mask(batch.mask), torch.tensor(batch.groups)
    expected = [sum(row) for row in reduction.weights(reduction.per_sequence, batch.mask, batch.groups)]
    weights = reduce.sequences(mask.any(1), groups, dtype=torch.float64)
    assert weights.tolist() == pytest.approx(expected, rel=1e-12)


def test_the_mean_over_groups():
    assert reduce.groups_mean(torch.tensor([True, False, True, True, True])).tolist() == [0.25, 0, 0.25, 0.25, 0.25]
    assert reduce.groups_mean(torch.tensor([False, False])).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("seed", range(5))
def test_in_the_frame_of_grpo_dapo_and_dr_grpo_multiply_the_coefficient(seed):
    """By |o_i| over the mean length of its group, and by |o_i| over the constant length."""
    batch = ragged(seed)
    mask, groups = padded_mask(batch.mask), torch.tensor(batch.groups)
    of_grpo = fast("per_sequence", mask, groups, dtype=torch.float64)
    lengths = [sum(row) for row in batch.mask]
    for i, t in mask.nonzero().tolist():
        others = [n for n, group in zip(lengths, batch.groups, strict=True) if group == batch.groups[i] and n]
        dapo = fast("tokens_of_group", mask, groups, dtype=torch.float64)[i, t] / of_grpo[i, t]
        assert dapo.item() == pytest.approx(lengths[i] / (sum(others) / len(others)))
        dr_grpo = fast("constant_length", mask, groups, dtype=torch.float64)[i, t] / of_grpo[i, t]
        assert dr_grpo.item() == pytest.approx(lengths[i] / LENGTH)
