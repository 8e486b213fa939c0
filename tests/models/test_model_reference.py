"""The reference policy: copies, synchronised copies and moving averages."""

import pytest
import torch

from sharpen.models.reference import average, copy_policy, follow
from tiny_models import tiny_policy


def test_a_copy_stays_while_the_policy_is_trained() -> None:
    policy = tiny_policy(tie_word_embeddings=True)
    policy.version = 3
    policy.add_value_head()
    policy.model.train()
    reference = copy_policy(policy)
    before = {name: p.clone() for name, p in policy.model.named_parameters()}
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter += 1
    assert all(torch.equal(p, before[name]) for name, p in reference.model.named_parameters())
    assert reference.parameters() == []
    assert reference.value_head is None
    assert not reference.model.training
    assert policy.model.training
    assert len(policy.parameters()) == len(before) + 2
    assert (reference.version, reference.source, reference.eos_ids) == (3, "tiny", policy.eos_ids)
    assert reference.tokenizer is policy.tokenizer
    head, table = reference.model.get_output_embeddings(), reference.model.get_input_embeddings()
    assert head.weight is table.weight


def test_following_takes_the_weights_and_their_version() -> None:
    policy, reference = tiny_policy(seed=1), copy_policy(tiny_policy(seed=2))
    policy.version = 9
    follow(reference, policy)
    pairs = zip(reference.model.parameters(), policy.model.parameters(), strict=True)
    assert all(torch.equal(mine, theirs) and mine is not theirs for mine, theirs in pairs)
    assert reference.version == 9


def test_a_moving_average_by_hand() -> None:
    """0.9 · 1 + 0.1 · 11 = 2, then 0.9 · 2 + 0.1 · 11 = 2.9."""
    policy = tiny_policy(dtype=torch.float64, tie_word_embeddings=True)
    reference = copy_policy(policy)
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
        average(copy_policy(policy), policy, 1.5)
    with pytest.raises(ValueError, match="differ in shape"):
        follow(copy_policy(tiny_policy("gpt2")), policy)


def test_a_copy_of_compiled_layers_is_compiled() -> None:
    policy = tiny_policy()
    layers = policy.model.get_decoder().layers
    layers[1].compile(backend="eager")
    copied = copy_policy(policy).model.get_decoder().layers
    assert [layer._compiled_call_impl is not None for layer in copied] == [
        layer._compiled_call_impl is not None for layer in layers
    ]
    assert copied[1]._compiled_call_impl is not layers[1]._compiled_call_impl
