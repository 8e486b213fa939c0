"""Conversations that are not one run of tokens: what each assistant turn reads and writes, worked out by hand.

Each template does what its family's does to the conversation, and no more.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from tiny_tokenizers import make_tokenizer

from sharpen.data.chat import ChatFormat, demonstration
from sharpen.errors import DataError
from sharpen.types import Message

TURN = "<|im_start|>{{ m.role }}\n"
QWEN_3 = (
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}"
    "{% endif %}{% endfor %}{% for m in messages %}" + TURN + "{% if m.role == 'assistant' %}"
    "{% set thought = m.reasoning_content or '' %}{% set said = m.content %}{% if '</think>' in said %}"
    "{% set thought = said.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if loop.index0 > ns.last and (loop.last or thought) %}<think>\n{{ thought }}\n</think>\n\n{% endif %}"
    "{{ said }}{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
R1 = (
    "<BOS>{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}{% else %}"
    "<|Assistant|>{{ m.content.split('</think>')[-1] }}<EOS>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)
V3_1 = (
    "<BOS>{% for m in messages %}{% if m.role == 'user' %}<|User|>{{ m.content }}{% else %}"
    "<|Assistant|></think>{{ m.content.split('</think>')[-1] }}<EOS>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|>{{ '<think>' if thinking else '</think>' }}{% endif %}"
)
PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}<|endoftext|>{% endif %}"
)
MISTRAL = (
    "{% if messages[0].role == 'system' %}{% set said = messages[0].content %}{% set rest = messages[1:] %}"
    "{% else %}{% set rest = messages %}{% endif %}<s>{% for m in rest %}{% if m.role == 'user' %}"
    "{% if loop.last and said is defined %}[INST]{{ said }}\n\n{{ m.content }}[/INST]"
    "{% else %}[INST]{{ m.content }}[/INST]{% endif %}{% else %} {{ m.content }}</s>{% endif %}{% endfor %}"
)
GPT_OSS = (
    "{% for m in messages %}{% if m.role != 'assistant' %}<|start|>{{ m.role }}<|message|>{{ m.content }}<|end|>"
    "{% elif loop.last and not add_generation_prompt %}"
    "{% if m.thinking %}<|start|>assistant<|channel|>analysis<|message|>{{ m.thinking }}<|end|>{% endif %}"
    "<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|return|>"
    "{% else %}<|start|>assistant<|channel|>final<|message|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
GEMMA_4 = (
    "{% for m in messages %}<turn>{{ 'model' if m.role == 'assistant' else m.role }}\n"
    "{% if m.tool_calls %}<call>{% endif %}{{ m.content }}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>model\n<channel>thought\n<done>{% endif %}"
)
SPECIAL = {
    GEMMA_4: ["<turn>", "<end>", "<channel>", "<call>", "<done>"],
    QWEN_3: ["<|im_start|>", "<|im_end|>"],
    R1: ["<BOS>", "<EOS>", "<|User|>", "<|Assistant|>"],
    V3_1: ["<BOS>", "<EOS>", "<|User|>", "<|Assistant|>"],
    PHI: ["<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"],
    MISTRAL: ["<s>", "</s>", "[INST]", "[/INST]"],
    GPT_OSS: ["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|return|>"],
}
EVERY_CHARACTER = sorted({*"abcdefghijklmnopqrstuvwxyz </>\n", *"BOSEUA|[]_"})


def chat_format(template: str, **arguments: Any) -> ChatFormat:
    """A tokenizer for which a character is a token, beside the special ones."""
    tokenizer = make_tokenizer(template)
    tokenizer.add_tokens([c for c in EVERY_CHARACTER if c not in tokenizer.get_vocab()])
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL[template]})
    return ChatFormat(tokenizer, arguments)


def turns(*contents: str, **last: str) -> list[Message]:
    """User and assistant in turn; ``last`` are further keys of the assistant's messages."""
    roles = ("user", "assistant")
    return [{"role": roles[i % 2], "content": content} | (last if i % 2 else {}) for i, content in enumerate(contents)]


def samples(chat: ChatFormat, messages: Sequence[Message], start: int = 1) -> list[tuple[str, str]]:
    """Each sample's prefix, and its tokens with those that are trained on in braces."""
    found = []
    for sample in demonstration(chat, messages, start, "t.jsonl:4").samples:
        text, place = "", 0
        for begin, end in sample.turns:
            text += decoded(chat, sample.token_ids[place:begin])
            text += "{" + decoded(chat, sample.token_ids[begin:end]) + "}"
            place = end
        assert place == len(sample.token_ids)
        found.append((decoded(chat, sample.prefix_ids), text))
    return found


def decoded(chat: ChatFormat, ids: Sequence[int]) -> str:
    return "".join(str(chat.tokenizer.convert_ids_to_tokens(i)) for i in ids)


U, A, END = "<|im_start|>user\n", "<|im_start|>assistant\n", "<|im_end|>"


def test_qwen_3_forgets_what_it_was_thinking() -> None:
    messages = turns("hi", "<think>\nhmm\n</think>\n\nyes", "why", "<think>\nso\n</think>\n\nno")
    assert samples(chat_format(QWEN_3), messages) == [
        (f"{U}hi{END}\n{A}", f"{{<think>\nhmm\n</think>\n\nyes{END}}}"),
        (f"{U}hi{END}\n{A}yes{END}\n{U}why{END}\n{A}", f"{{<think>\nso\n</think>\n\nno{END}}}"),
    ]


def test_qwen_3_has_reasoning_in_a_key_of_its_own_too() -> None:
    assert samples(chat_format(QWEN_3), turns("hi", "yes", reasoning_content="hmm")) == [
        (f"{U}hi{END}\n{A}", f"{{<think>\nhmm\n</think>\n\nyes{END}}}")
    ]


def test_qwen_3_without_thinking_is_told_so_in_the_prompt() -> None:
    chat = chat_format(QWEN_3, enable_thinking=False)
    empty = "<think>\n\n</think>\n\n"
    assert samples(chat, turns("hi", "yes", "why", "no")) == [
        (f"{U}hi{END}\n{A}{empty}", f"{{yes{END}}}"),
        (f"{U}hi{END}\n{A}yes{END}\n{U}why{END}\n{A}{empty}", f"{{no{END}}}"),
    ]
    with pytest.raises(DataError, match=r"t\.jsonl:4: message 2 \(assistant\) has thinking, for which .* no room"):
        samples(chat, turns("hi", "yes", reasoning_content="hmm"))


@pytest.mark.parametrize(
    "message",
    [
        {"content": "<think>\nhmm\n</think>\n\nyes"},
        {"content": "hmm\n</think>\n\nyes"},
        {"content": "yes", "reasoning_content": "hmm"},
    ],
)
def test_r1_goes_on_within_the_thinking_that_the_prompt_opens(message: Message) -> None:
    messages = [*turns("hi"), {"role": "assistant", **message}, *turns("why"), {"role": "assistant", **message}]
    first, second = samples(chat_format(R1), messages)
    assert first == ("<BOS><|User|>hi<|Assistant|><think>\n", "{hmm\n</think>\n\nyes<EOS>}")
    between = "\n\n" if "\n\nyes" in message["content"] else ""
    before = f"<BOS><|User|>hi<|Assistant|>{between}yes<EOS><|User|>why<|Assistant|><think>\n"
    assert second == (before, "{hmm\n</think>\n\nyes<EOS>}")


def test_r1_can_close_its_thinking_at_once() -> None:
    [(_, written)] = samples(chat_format(R1), turns("hi", "<think>\n\n</think>\n\nyes"))
    assert written == "{\n</think>\n\nyes<EOS>}"


def test_r1_is_not_trained_on_answers_that_close_no_thinking() -> None:
    message = r"t\.jsonl:4: message 2 \(assistant\): .* opens <think>, and this message closes no thinking"
    with pytest.raises(DataError, match=message):
        samples(chat_format(R1), turns("hi", "yes"))


def test_deepseek_v3_1_thinks_as_its_arguments_say() -> None:
    thought = turns("hi", "<think>hmm</think>yes")
    assert samples(chat_format(V3_1, thinking=True), thought) == [
        ("<BOS><|User|>hi<|Assistant|><think>", "{hmm</think>yes<EOS>}")
    ]
    assert samples(chat_format(V3_1), turns("hi", "yes")) == [("<BOS><|User|>hi<|Assistant|></think>", "{yes<EOS>}")]


def test_phi_writes_an_end_after_everything() -> None:
    """It is no part of what the next turn reads, and no answer's."""
    assert samples(chat_format(PHI), turns("hi", "yes", "why", "no")) == [
        ("<|user|>\nhi<|end|>\n<|assistant|>\n", "{yes<|end|>}\n<|user|>\nwhy<|end|>\n<|assistant|>\n{no<|end|>}")
    ]


def test_mistral_moves_the_system_message_to_the_last_question() -> None:
    messages = [{"role": "system", "content": "be"}, *turns("hi", "yes", "why", "no")]
    assert samples(chat_format(MISTRAL), messages, 2) == [
        ("<s>[INST]be\n\nhi[/INST]", "{ yes</s>}"),
        ("<s>[INST]hi[/INST] yes</s>[INST]be\n\nwhy[/INST]", "{ no</s>}"),
    ]


def test_gpt_oss_drops_earlier_thinking_and_ends_only_the_last_turn_for_good() -> None:
    messages = turns("hi", "yes", "why", "no", thinking="hmm")
    asked, say = "<|start|>user<|message|>", "<|channel|>final<|message|>"
    thought = "<|channel|>analysis<|message|>hmm<|end|><|start|>assistant"
    assert samples(chat_format(GPT_OSS), messages) == [
        (f"{asked}hi<|end|><|start|>assistant", f"{{{thought}{say}yes<|return|>}}"),
        (
            f"{asked}hi<|end|><|start|>assistant{say}yes<|end|>{asked}why<|end|><|start|>assistant",
            f"{{{thought}{say}no<|return|>}}",
        ),
    ]


@pytest.mark.parametrize("answer", ["yes", "<channel>yes"])
def test_gemma_4_closes_thinking_in_the_prompt_alone(answer: str) -> None:
    assert samples(chat_format(GEMMA_4), turns("hi", answer, "why", "no")) == [
        ("<turn>user\nhi<end>\n<turn>model\n<channel>thought\n<done>", f"{{{answer}<end>}}"),
        (
            f"<turn>user\nhi<end>\n<turn>model\n{answer}<end>\n<turn>user\nwhy<end>\n"
            "<turn>model\n<channel>thought\n<done>",
            "{no<end>}",
        ),
    ]
    call = {"tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    [(_, written)] = samples(chat_format(GEMMA_4), [*turns("hi"), {"role": "assistant", "content": "", **call}])
    assert written == "{<call><end>}"


def test_what_the_template_strips_is_not_trained_on() -> None:
    chat = chat_format(QWEN_3)
    chat.tokenizer.chat_template = QWEN_3.replace("{{ said }}", "{{ said.strip() }}")
    [(_, written)] = samples(chat, turns("hi", "  yes\n"))
    assert written == f"{{<think>\n\n</think>\n\nyes{END}}}"


def test_a_conversation_that_is_written_anew_is_refused_with_the_reason() -> None:
    chat = chat_format(PHI)
    chat.tokenizer.chat_template = "{{ messages | length }}" + PHI.replace(
        "m.content", "(m.content ~ messages | length)"
    )
    with pytest.raises(
        DataError, match=r"t\.jsonl:4: message 2 \(assistant\): with this answer the chat template writes"
    ):
        samples(chat, turns("hi", "yes"))
