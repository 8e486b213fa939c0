"""The reference policy: frozen, synchronised and a moving average."""

import pytest
import torch

from sharpen.models.reference import average, follow, frozen
from tiny_models import tiny_policy


def test_a_reference_is_frozen_and_has_no_value_head() -> None:
    policy = tiny_policy(tie_word_embeddings=True)
    policy.add_value_head()
    policy.model.train()
    assert len(policy.parameters()) == len(list(policy.model.parameters())) + 2
    reference = frozen(policy)
    assert reference.parameters() == []
    assert reference.value_head is None
    assert not reference.model.training


def test_following_takes_the_weights_and_their_version() -> None:
    policy, reference = tiny_policy(seed=1), frozen(tiny_policy(seed=2))
    policy.version = 9
    follow(reference, policy)
    pairs = zip(reference.model.parameters(), policy.model.parameters(), strict=True)
    assert all(torch.equal(mine, theirs) and mine is not theirs for mine, theirs in pairs)
    assert reference.version == 9


def test_a_moving_average_by_hand() -> None:
    """0.9 · 1 + 0.1 · 11 = 2, then 0.9 · 2 + 0.1 · 11 = 2.9."""
    policy = tiny_policy(dtype=torch.float64, tie_word_embeddings=True)
    reference = frozen(tiny_policy(dtype=torch.float64, tie_word_embeddings=True))
    for model, value in ((policy.model, 11.0), (reference.model, 1.0)):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.fill_(value)
    for expected in (2.0, 2.9):
        average(reference, policy, 0.9)
        for parameter in reference.model.parameters():
            torch.testing.assert_close(parameter.data, torch.full_like(parameter, expected), rtol=1e-14, atol=0)
    assert {p.unique().item() for p in policy.model.parameters()} == {11.0}
    assert reference.version == 2
    assert reference.parameters() == []


def test_averaging_needs_a_valid_decay_and_equal_shapes() -> None:
    policy = tiny_policy()
    with pytest.raises(ValueError, match=r"decay is 1\.5"):
        average(frozen(tiny_policy()), policy, 1.5)
    with pytest.raises(ValueError, match="differ in shape"):
        follow(frozen(tiny_policy("gpt2")), policy)
