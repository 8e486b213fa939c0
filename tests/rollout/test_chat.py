"""A chat: what each turn asks of the engine, and what it computes."""

import pytest
import torch
from test_local_engine import scripted

from oracles import sampling as oracle
from sharpen.models.policy import Policy
from sharpen.rollout.chat import Conversation
from sharpen.rollout.engine import EngineCounters, Sampling
from sharpen.rollout.sampling import uniforms
from sharpen.rollout.settings import EngineSettings
from tiny_models import tiny_policy

TEMPLATE = "{% for m in messages %}{{ m['content'] }}#{% endfor %}{% if add_generation_prompt %}a{% endif %}"
SEED = 5


CHAINS = {"a": "3", "3": "4", "4": "5", "5": "3", "#": "6", "6": "7", "7": "8", "8": "6"}


def known() -> Policy:
    """Answers 345345 after an a, 678678 after a #."""
    policy = scripted(CHAINS)
    policy.tokenizer.chat_template = TEMPLATE
    return policy


@pytest.fixture
def policy() -> Policy:
    policy = tiny_policy("qwen2")
    policy.eos_ids = frozenset()
    policy.tokenizer.chat_template = TEMPLATE
    return policy


def computed(conversation: Conversation) -> EngineCounters:
    return conversation._engine.counters


def test_a_turn_computes_only_what_is_new() -> None:
    """The template ends a turn with #, and puts an a before the answer only while it is asked for."""
    conversation = Conversation(known(), Sampling(6), seed=SEED)
    assert conversation.reply("1+2").text == "345345"
    assert (computed(conversation).prefill_tokens, computed(conversation).reused_tokens) == (5, 0)
    conversation.reply("7")
    # "1+2#345345#7#a" parts from "1+2#a34534" after four characters.
    assert (computed(conversation).prefill_tokens, computed(conversation).reused_tokens) == (5 + 10, 4)


def test_a_template_that_only_appends_reuses_the_answer() -> None:
    policy = known()
    policy.tokenizer.chat_template = TEMPLATE.replace("{% if add_generation_prompt %}a{% endif %}", "")
    conversation = Conversation(policy, Sampling(6), seed=SEED)
    assert [conversation.reply(text).text for text in ("1+2", "7")] == ["678678"] * 2
    # New are the last token of the answer and "#7#".
    assert (computed(conversation).prefill_tokens, computed(conversation).reused_tokens) == (4 + 4, 4 + 5)


def test_random_numbers_go_on_over_the_turns_and_differ_after_a_reset(policy: Policy) -> None:
    conversation = Conversation(policy, Sampling(6), seed=SEED)
    replies = [conversation.reply(text) for text in ("1+2", "7", "9")]
    conversation.reset()
    replies += [conversation.reply(text) for text in ("1+2", "7")]
    numbers = uniforms(SEED, [0, 1], 18)
    for reply, number_T in zip(replies, [*numbers[0].split(6), *numbers[1, :12].split(6)], strict=True):
        context = reply.request.token_ids
        with torch.no_grad():
            logits = policy.model(input_ids=torch.tensor([[*context, *reply.token_ids]])).logits[0].double()
        for t, token in enumerate(reply.token_ids):
            low, high = oracle.interval(oracle.softmax(logits[len(context) + t - 1].tolist()), token)
            assert low - 1e-6 <= number_T[t] <= high + 1e-6
    assert computed(conversation).reused_tokens > 0
    again = Conversation(policy, Sampling(6), seed=SEED)
    assert [again.reply(text).text for text in ("1+2", "7", "9")] == [reply.text for reply in replies[:3]]


def test_without_a_template_every_text_stands_alone(policy: Policy) -> None:
    policy.tokenizer.chat_template = None
    conversation = Conversation(policy, Sampling(6), seed=SEED, engine_settings=EngineSettings(kv_gib=0.25))
    replies = [conversation.reply("1+2") for _ in range(2)]
    assert [(reply.request.draw_id, reply.request.offset) for reply in replies] == [(0, 0), (1, 0)]
    assert computed(conversation).reused_tokens == 0
    conversation.close()
    with pytest.raises(RuntimeError, match="closed"):
        conversation.reply("1+2")
