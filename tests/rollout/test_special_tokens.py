"""Special tokens in what the engine draws: in its text, and as stop strings."""

import torch
from test_local_engine import EOS, make_prompt, sample, scripted

from sharpen.models.policy import Policy
from sharpen.types import Finish


def with_thinking(script: dict[str, str]) -> Policy:
    """`scripted`, where ``b`` and ``+`` are special tokens."""
    policy = scripted(script)
    policy.tokenizer.add_special_tokens({"additional_special_tokens": ["b", "+"]})
    return policy


def drawn(policy: Policy, prompt: str, **settings: object) -> tuple[str, Finish]:
    [[one]] = sample(policy, [make_prompt(policy, prompt)], [[0]], **settings)
    return one.text, one.last.finish


CHAIN = {"a": "b", "b": "1", "1": "+", "+": "2", "2": "<eos>"}


def test_special_tokens_are_part_of_the_text() -> None:
    assert drawn(with_thinking(CHAIN), "a", max_new_tokens=9) == ("b1+2", Finish.EOS)


def test_ends_and_padding_are_not() -> None:
    policy = with_thinking(CHAIN | {"+": "<pad>", "<pad>": "2"})
    assert drawn(policy, "a", max_new_tokens=9) == ("b1+2", Finish.EOS)
    policy.eos_ids |= {policy.tokenizer.convert_tokens_to_ids("+")}
    assert drawn(policy, "a", max_new_tokens=9) == ("b1", Finish.EOS)


def test_a_stop_string_may_be_a_special_token_or_contain_one() -> None:
    policy = with_thinking(CHAIN | {"+": "<unk>", "<unk>": "<pad>", "<pad>": "2"})
    assert drawn(policy, "a", max_new_tokens=9, stop=("+",)) == ("b1+", Finish.STOP)
    assert drawn(policy, "a", max_new_tokens=9, stop=("1+",)) == ("b1+", Finish.STOP)
    assert drawn(policy, "a", max_new_tokens=9, stop=("+<unk>",)) == ("b1+", Finish.STOP)
    # Padding ends a completion too if it is asked to, though no text shows it.
    assert drawn(policy, "a", max_new_tokens=9, stop=("<pad>",)) == ("b1+", Finish.STOP)


def test_a_stop_string_that_ends_a_completion_anyway_changes_nothing() -> None:
    policy = with_thinking(CHAIN)
    assert drawn(policy, "a", max_new_tokens=9, stop=("<eos>",)) == ("b1+2", Finish.EOS)


def test_an_embedding_without_a_token_can_be_drawn() -> None:
    """A model may have more embeddings than its tokenizer has tokens."""
    policy = with_thinking(CHAIN)
    beyond = len(policy.tokenizer)
    policy.model.resize_token_embeddings(beyond + 1, mean_resizing=False)
    head, table = policy.model.lm_head.weight, policy.model.model.embed_tokens.weight
    with torch.no_grad():
        head[beyond], table[beyond] = 0.0, 0.0
        head[beyond, policy.tokenizer.convert_tokens_to_ids("a")] = 200.0
        table[beyond, EOS], head[EOS, EOS] = 1.0, 100.0
    [[one]] = sample(policy, [make_prompt(policy, "a")], [[0]], max_new_tokens=9)
    assert (one.token_ids, one.text, one.last.finish) == ((beyond, EOS), "", Finish.EOS)
