"""What ends an assistant's turn, by template; each template is what its family's is, cut down to the end of turns."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from tiny_tokenizers import make_tokenizer
from transformers import PreTrainedTokenizerFast

from sharpen.data.chat import ChatFormat, TurnEnd, demonstration, turn_end
from sharpen.errors import DataError
from sharpen.types import Message

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_2 = (
    "{% for m in messages %}{% if m.role == 'user' %}<s>[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
)
PHI = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}<|endoftext|>{% endif %}"
)
GLM = (
    "[gMASK]{% for m in messages %}{% if m.role == 'tool' %}<|observation|>\n{{ m.content }}"
    "{% elif m.tool_calls %}<|assistant|>\n<call>{% else %}<|{{ m.role }}|>\n{{ m.content }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
GPT_OSS = (
    "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}<|message|>"
    "{{ m.content }}{% if m.role == 'assistant' and loop.last and not add_generation_prompt %}<|return|>"
    "{% else %}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
)
PLAIN = (
    "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
NEEDS_SYSTEM = "{% if messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
GENERATION = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
    "{% else %}{{ m.content }}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def tokenizer_of(template: str, special: Sequence[str] = (), eos: str | None = "<eos>") -> PreTrainedTokenizerFast:
    tokenizer = make_tokenizer(template, eos)
    tokenizer.add_special_tokens({"additional_special_tokens": [*special]})
    return tokenizer


def learned(template: str, special: Sequence[str] = (), *, declared: Sequence[str] = ()) -> tuple[TurnEnd, list[str]]:
    """The end of turn, and its tokens' texts."""
    tokenizer = tokenizer_of(template, special)
    eos_ids = frozenset(map(tokenizer.convert_tokens_to_ids, declared))
    end = turn_end(ChatFormat(tokenizer, {}, eos_ids=eos_ids))
    return end, sorted(map(tokenizer.convert_ids_to_tokens, end.token_ids))


def said(role: str, content: str) -> Message:
    return {"role": role, "content": content}


def trained(
    template: str, special: Sequence[str], messages: Sequence[Message], *, declared: Sequence[str] = ()
) -> list[list[str]]:
    """The texts of the trained tokens, turn by turn."""
    tokenizer = tokenizer_of(template, special)
    eos_ids = frozenset(map(tokenizer.convert_tokens_to_ids, declared))
    found = demonstration(ChatFormat(tokenizer, {}, eos_ids=eos_ids), messages, 1, "row 1")
    runs = [[*sample.token_ids[start:stop]] for sample in found.samples for start, stop in sample.turns]
    assert [tuple(run) for run in runs] == [*found.turns]
    return [[str(tokenizer.convert_ids_to_tokens(i)) for i in run] for run in runs]


@pytest.mark.parametrize(
    ("template", "special", "text", "tail", "ends"),
    [
        (CHATML, ["<|im_start|>", "<|im_end|>"], "<|im_end|>", "\n", ["<|im_end|>"]),
        (LLAMA_2, ["<s>", "</s>"], " </s>", "", ["</s>"]),
        (PHI, ["<|user|>", "<|assistant|>", "<|end|>", "<|endoftext|>"], "<|end|>", "\n<|endoftext|>", ["<|end|>"]),
        (
            GPT_OSS,
            ["<|start|>", "<|channel|>", "<|message|>", "<|return|>", "<|end|>"],
            "<|return|>",
            "",
            ["<|return|>"],
        ),
        (NEEDS_SYSTEM, ["<|im_start|>", "<|im_end|>"], "<|im_end|>", "\n", ["<|im_end|>"]),
    ],
    ids=["chatml", "llama 2", "phi 3.5", "gpt-oss", "needs a system message"],
)
def test_the_first_special_token_after_the_content_ends_the_turn(
    template: str, special: list[str], text: str, tail: str, ends: list[str]
) -> None:
    end, tokens = learned(template, special)
    assert (end.text, end.tail, tokens) == (text, tail, ends)
    assert (end.appended, end.warning, end.next_turn) == ((), None, {})


def test_the_token_that_begins_the_next_turn_ends_this_one_if_the_model_declares_it() -> None:
    special = ["[gMASK]", "<|user|>", "<|assistant|>", "<|observation|>"]
    declared = ["<|user|>", "<|observation|>"]
    end, tokens = learned(GLM, special, declared=declared)
    assert tokens == ["<|observation|>", "<|user|>"]
    assert end.next_turn == {"user": "<|user|>", "tool": "<|observation|>"}
    called = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    turns = [said("user", "hi"), called, said("tool", "ok"), said("assistant", "yes"), said("user", "why")]
    # What follows a turn ends it; a last call is followed by what was found, a last answer by the user.
    assert [run[-1] for run in trained(GLM, special, turns, declared=declared)] == ["<|observation|>", "<|user|>"]
    assert [run[-1] for run in trained(GLM, special, turns[:2], declared=declared)] == ["<|observation|>"]
    assert [run[-1] for run in trained(GLM, special, turns[:4], declared=declared)][-1] == "<|user|>"


def test_tokens_of_the_next_turn_that_the_model_does_not_declare_end_nothing() -> None:
    end, tokens = learned(GLM, ["[gMASK]", "<|user|>", "<|assistant|>", "<|observation|>"])
    assert (tokens, end.next_turn) == (["<eos>"], {})


def test_where_the_template_ends_no_turn_the_end_of_sequence_does() -> None:
    end, tokens = learned(PLAIN)
    assert (end.text, end.tail, tokens, end.warning) == ("", "\n", ["<eos>"], None)
    turns = [said("user", "hi"), said("assistant", "yes"), said("user", "why"), said("assistant", "no")]
    assert trained(PLAIN, [], turns) == [[" ", "yes", "<eos>"], [" ", "no", "<eos>"]]
    without = ChatFormat(make_tokenizer(PLAIN, eos=None), {})
    assert turn_end(without).token_ids == set()
    with pytest.raises(DataError, match="writes no token that ends the assistant's turn, and its tokenizer has no"):
        demonstration(without, turns, 1, "row 1")


def test_an_end_that_is_only_text_is_trained_on_and_followed_by_the_end_of_sequence() -> None:
    end, tokens = learned(CHATML)
    assert (end.text, end.tail, tokens) == ("<|im_end|>", "\n", ["<eos>"])
    assert end.warning is not None
    assert "'<|im_end|>', which is no special token of its tokenizer" in end.warning
    [run] = trained(CHATML, [], [said("user", "hi"), said("assistant", "yes")])
    # The tiny vocabulary has one word for all that it does not know.
    assert run == ["?", "<eos>"]


def test_an_end_outside_the_block_of_what_is_generated_is_trained_on() -> None:
    turns = [said("user", "hi"), said("assistant", "yes"), said("user", "why"), said("assistant", "no")]
    runs = trained(GENERATION, ["<|im_start|>", "<|im_end|>"], turns)
    assert runs == [["yes", "<|im_end|>"], ["no", "<|im_end|>"]]


def test_a_turn_that_ends_in_another_special_token_ends_there() -> None:
    calls = "{% if m.tool_calls %}<call><|eom|>\n{% else %}{{ m.content }}<|eot|>\n{% endif %}"
    template = (
        "{% for m in messages %}<|{{ m.role }}|>"
        + calls
        + ("{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}")
    )
    special = ["<|user|>", "<|assistant|>", "<|eom|>", "<|eot|>", "<call>"]
    called = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    assert trained(template, special, [said("user", "hi"), called]) == [["<call>", "<|eom|>"]]
    endless = template.replace("<call><|eom|>", "yes")
    assert trained(endless, special, [said("user", "hi"), called]) == [["yes", "<|eot|>"]]


CALLED = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
CALLS = (
    "{% for m in messages %}<|{{ m.role }}|>{% for c in m.tool_calls or [] %}<call>{{ c.function.name }}"
    "{{ c.function.arguments }}<done>{% endfor %}{{ m.content }}"
    "{% if not m.tool_calls %}<|eot|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def test_a_token_that_ends_turns_with_calls_alone_ends_turns_too() -> None:
    """gpt-oss ends a call with <|call|>, which a model need not declare."""
    special = ["<|user|>", "<|assistant|>", "<call>", "<done>", "<|eot|>", "<|eom|>"]
    ended = CALLS.replace("{% endfor %}{{ m.content }}", "{% endfor %}{{ '<|eom|>' if m.tool_calls }}{{ m.content }}")
    end, tokens = learned(ended, special)
    assert tokens == ["<|eom|>", "<|eot|>"]
    assert end.stops == end.token_ids
    assert end.text == "<|eot|>"
    assert learned(ended, special, declared=["<|eom|>"])[1] == ["<|eom|>", "<|eot|>"]
    [run] = trained(ended, special, [said("user", "hi"), CALLED])
    assert run[-2:] == ["<done>", "<|eom|>"]
    one_call = "{% if m.tool_calls and m.tool_calls | length > 1 %}{{ raise_exception('one call') }}{% endif %}"
    rejecting = ended.replace("{% for c in", f"{one_call}{{% for c in", 1)
    assert learned(rejecting, special)[1] == ["<|eom|>", "<|eot|>"]


def test_a_token_that_ends_each_of_several_calls_ends_no_turn() -> None:
    special = ["<|user|>", "<|assistant|>", "<call>", "<done>", "<|eot|>"]
    assert learned(CALLS, special)[1] == ["<|eot|>"]


def test_of_several_ends_the_one_that_the_model_declares_counts() -> None:
    """Command R7B's, which also comes after its calls."""
    template = (
        "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{{ m.content }}<|end of answer|>"
        "{% else %}{{ m.content }}{% endif %}<|end of turn|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    special = ["<|user|>", "<|assistant|>", "<|end of answer|>", "<|end of turn|>"]
    assert learned(template, special)[1] == ["<|end of answer|>"]
    assert learned(template, special, declared=["<|end of turn|>"])[1] == ["<|end of turn|>"]
    turns = [said("user", "hi"), said("assistant", "yes")]
    assert trained(template, special, turns, declared=["<|end of turn|>"]) == [
        ["yes", "<|end of answer|>", "<|end of turn|>"]
    ]


def test_special_tokens_at_the_end_of_what_is_said_end_nothing() -> None:
    turns = [said("user", "hi"), said("assistant", "<think>yes<system>")]
    assert trained(PLAIN, [], turns) == [[" ", "<think>", "yes", "<system>", "<eos>"]]
    ended = [said("user", "hi"), said("assistant", "yes<|im_end|>")]
    assert trained(CHATML, ["<|im_start|>", "<|im_end|>"], ended) == [["yes", "<|im_end|>"]]


def test_the_template_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = ChatFormat(tokenizer_of(CHATML, ["<|im_start|>", "<|im_end|>"]), {})
    first = turn_end(chat)
    monkeypatch.setattr(ChatFormat, "text", None)
    assert turn_end(chat) is first


def test_what_a_template_writes_after_the_end_is_not_the_assistants() -> None:
    """DeepSeek's templates write an empty answer after a call, unless its content is null."""
    template = (
        "{% for m in messages %}{% if m.role != 'assistant' %}<|{{ m.role }}|>{{ m.content }}{% else %}"
        "{% if m.tool_calls %}<|assistant|><call><eos>{% endif %}"
        "{% if m.content is not none %}<|assistant|>{{ m.content }}<eos>{% endif %}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    special = ["<|user|>", "<|assistant|>", "<|tool|>", "<call>"]
    called = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}
    turns = [said("user", "hi"), called, said("tool", "ok"), said("assistant", "yes")]
    assert trained(template, special, turns) == [["<call>", "<eos>"], ["yes", "<eos>"]]
