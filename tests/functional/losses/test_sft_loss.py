import pytest
import torch

from oracles import differences, sft
from oracles.ragged import padded, padded_mask, ragged
from sharpen.functional.losses import reduce


def fast_loss(batch, weights):
    logprobs = padded(batch.policy).requires_grad_()
    loss = -(weights * logprobs).sum()
    loss.backward()
    return loss.item(), logprobs.grad


def assert_matches(batch, weights, oracle):
    loss, gradient = fast_loss(batch, weights)
    assert loss == pytest.approx(oracle(batch.policy, batch.mask), rel=1e-6)
    expected = differences.gradient(lambda rows: oracle(rows, batch.mask), batch.policy)
    torch.testing.assert_close(gradient, padded(expected, fill=0.0), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("seed", range(8))
def test_mean_over_the_tokens_of_the_batch(seed):
    batch = ragged(seed)
    assert_matches(batch, reduce.tokens_of_batch(padded_mask(batch.mask), dtype=torch.float64), sft.token_mean)


@pytest.mark.parametrize("seed", range(8))
def test_mean_per_sequence_with_each_demonstration_its_own_group(seed):
    batch = ragged(seed)
    own_group = torch.arange(len(batch.groups))
    weights = reduce.per_sequence(padded_mask(batch.mask), own_group, dtype=torch.float64)
    assert_matches(batch, weights, sft.sequence_mean)
