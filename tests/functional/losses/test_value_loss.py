import pytest
import torch

from oracles.ragged import ragged
from oracles.scalars import assert_same_terms
from sharpen.functional.losses.value import value_loss


def slow(values, targets, old_values, clip):
    terms = []
    for value, target, old in zip(values, targets, old_values, strict=True):
        squared = (value - target) ** 2
        if clip is not None:
            near = max(old - clip, min(old + clip, value))
            squared = max(squared, (near - target) ** 2)
        terms.append(squared / 2)
    return terms


@pytest.mark.parametrize("clip", [None, 0.1, 0.5])
def test_value_and_gradient_against_the_plain_loop(clip):
    """The three rows of numbers of a batch serve as values, old values and targets."""
    for seed in range(10):
        batch = ragged(seed)

        def fast(values, old, targets, adv, mask):
            return value_loss(values, targets, old_values_ET=None if clip is None else old, clip=clip)

        assert_same_terms(
            batch, batch.policy, fast, lambda v, old, targets, adv, mask: slow(v, targets, old, clip), seed=seed
        )


# V, V_old, target, loss and gradient with the clip at 0.5
CORNERS = [
    (1.2, 1.0, 3.0, 0.5 * 1.8**2, -1.8),  # within the interval
    (2.0, 1.0, 3.0, 0.5 * 1.5**2, 0.0),  # has left it towards the target
    (0.0, 1.0, 3.0, 0.5 * 3.0**2, -3.0),  # has left it away from the target
    (4.0, 1.0, 3.0, 0.5 * 1.5**2, 0.0),  # has run past the target, but less far than the clipped one is from it
    (9.0, 1.0, 3.0, 0.5 * 6.0**2, 6.0),  # has run far past it
]


@pytest.mark.parametrize(("value", "old", "target", "loss", "gradient"), CORNERS)
def test_the_clip_by_hand(value, old, target, loss, gradient):
    values, old, targets = (torch.tensor([[x]], dtype=torch.float64) for x in (value, old, target))
    values.requires_grad_()
    found = value_loss(values, targets, old_values_ET=old, clip=0.5)
    found.sum().backward()
    assert found.item() == pytest.approx(loss)
    assert values.grad.item() == pytest.approx(gradient)


@pytest.mark.parametrize("options", [{"clip": 0.2}, {"old_values_ET": torch.ones(1, 1)}])
def test_half_of_the_clip_is_refused(options):
    with pytest.raises(ValueError, match="both"):
        value_loss(torch.ones(1, 1), torch.ones(1, 1), **options)
