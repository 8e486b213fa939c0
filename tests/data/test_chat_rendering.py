"""Masks worked out by hand: T marks the tokens that the assistant wrote."""

import pytest
from tiny_tokenizers import FORGETFUL_TEMPLATE, GENERATION_TEMPLATE, PLAIN_TEMPLATE, ids, make_tokenizer

from sharpen.data.chat import ChatFormat, demonstration
from sharpen.errors import DataError, RecipeError


def turns(*said):
    roles = {"u": "user", "a": "assistant", "s": "system"}
    return [{"role": roles[role], "content": content} for role, content in said]


TWO_TURNS = turns(("u", "hi"), ("a", "yes"), ("u", "why"), ("a", "no"))


def test_the_prompt_ends_where_the_assistant_begins(chat):
    format_ = ChatFormat(chat, {})
    assert format_.prompt_text(turns(("u", "hi"))) == "<user>hi<eos>\n<assistant>"
    assert format_.prompt_ids(turns(("u", "hi"))) == ids(r"<user> hi <eos> \n <assistant>")


def test_keyword_arguments_reach_the_template(chat):
    assert ChatFormat(chat, {"think": True}).prompt_ids(turns(("u", "hi")))[-2:] == ids("<assistant> <think>")


def test_an_argument_that_no_template_reads_is_an_error(chat):
    with pytest.raises(RecipeError, match=r"no effect of the chat template argument `thnk`: .* Did you mean `think`"):
        ChatFormat(chat, {"thnk": True})
    with pytest.raises(RecipeError, match="arguments `a`, `tools`"):
        ChatFormat(chat, {"a": True, "tools": []})
    several = make_tokenizer({"default": PLAIN_TEMPLATE, "tool_use": "{{ tools }}" + PLAIN_TEMPLATE})
    assert ChatFormat(several, {"tools": [{"name": "be"}]}).prompt_text(turns(("u", "hi"))).startswith("[{'name': 'be'")


def test_the_system_message_goes_before_conversations_without_one(chat):
    format_ = ChatFormat(chat, {}, system="be")
    assert format_.prompt_ids(turns(("u", "hi"))) == ids(r"<system> be <eos> \n <user> hi <eos> \n <assistant>")
    assert format_.prompt_ids(turns(("s", "nice"), ("u", "hi")))[:2] == ids("<system> nice")


@pytest.mark.parametrize("template", [PLAIN_TEMPLATE, GENERATION_TEMPLATE])
def test_only_what_the_assistant_wrote_is_trained_on(template):
    format_ = ChatFormat(make_tokenizer(template), {})
    cut = demonstration(format_, TWO_TURNS, 1, "row 1")
    assert cut.prompt_ids == ids(r"<user> hi <eos> \n <assistant>")
    assert cut.samples[0].token_ids == ids(r"yes <eos> \n <user> why <eos> \n <assistant> no <eos>")
    assert "".join("T" if trained else "." for trained in cut.samples[0].loss_mask) == "TT......TT"


@pytest.mark.parametrize("template", [PLAIN_TEMPLATE, GENERATION_TEMPLATE])
def test_turns_of_the_prompt_and_after_the_last_answer_are_not_trained_on(template):
    format_ = ChatFormat(make_tokenizer(template), {}, system="be")
    cut = demonstration(format_, [*TWO_TURNS, *turns(("u", "ok"))], 3, "row 1")
    assert cut.prompt_ids == ids(
        r"<system> be <eos> \n <user> hi <eos> \n <assistant> yes <eos> \n <user> why <eos> \n <assistant>"
    )
    assert (cut.samples[0].token_ids, cut.samples[0].loss_mask) == (ids("no <eos>"), (True, True))


def test_a_prefix_that_changes_begins_a_sample():
    format_ = ChatFormat(make_tokenizer(FORGETFUL_TEMPLATE), {})
    cut = demonstration(format_, TWO_TURNS, 1, "t.jsonl:4")
    first, second = cut.samples
    assert (first.prefix_ids, cut.prompt_ids) == (ids(r"<user> hi <eos> \n <assistant>"),) * 2
    assert first.token_ids == ids(r"<think> hmm \n yes <eos>")
    # What the model was thinking is gone from the next prefix.
    before = r"<user> hi <eos> \n <assistant> yes <eos> \n <user> why <eos> \n <assistant>"
    assert second.prefix_ids == ids(before)
    assert second.token_ids == ids(r"<think> hmm \n no <eos>")
    assert first.loss_mask == second.loss_mask == (True,) * 5
    assert cut.turns == (first.token_ids, second.token_ids)


def test_thinking_that_is_opened_and_not_closed_is_refused(chat):
    with pytest.raises(DataError, match=r"row 1: message 2 \(assistant\): .* opens <think>, and .* closes no thinking"):
        demonstration(ChatFormat(chat, {"think": True}), TWO_TURNS, 1, "row 1")


def test_a_tokenizer_without_template_is_refused(plain):
    with pytest.raises(DataError, match="has no chat template"):
        ChatFormat(plain, {})


def test_what_the_template_refuses_names_the_row():
    tokenizer = make_tokenizer("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(DataError, match=r"row 7: the chat template rejects .* roles must alternate"):
        ChatFormat(tokenizer, {}).prompt_ids(turns(("u", "hi")), "row 7")


IGNORING = "{% for m in messages %}<{{ m.role }}>\n{{ m.content }}<eos>\n{% endfor %}"


def test_a_header_that_the_template_does_not_prompt_with_is_the_generation_prompt():
    format_ = ChatFormat(make_tokenizer(IGNORING), {})
    assert format_.prompt_ids(turns(("u", "hi"))) == ids(r"<user> \n hi <eos> \n <assistant> \n")
    cut = demonstration(format_, TWO_TURNS, 1, "row 1")
    (sample,) = cut.samples
    assert sample.prefix_ids == ids(r"<user> \n hi <eos> \n <assistant> \n")
    assert sample.token_ids == ids(r"yes <eos> \n <user> \n why <eos> \n <assistant> \n no <eos>")
    assert "".join("T" if trained else "." for trained in sample.loss_mask) == "TT" + "." * 8 + "TT"
    # As saved with the model, for other programs.
    saved = format_.tokenizer.apply_chat_template(turns(("u", "hi")), add_generation_prompt=True, tokenize=False)
    assert saved == "<user>\nhi<eos>\n<assistant>\n"


HEADERS = {
    # Llama 2, Mistral: nothing but a blank.
    "{% for m in messages %}{{ '[' ~ m.content ~ ']' if m.role == 'user' else ' ' ~ m.content ~ '#' }}{% endfor %}": "",
    # MiniCPM: the question ends with it.
    "{% for m in messages %}{{ m.content }}{{ '<assistant>' if m.role == 'user' }}{% endfor %}": "",
    # A header that changes from turn to turn is none.
    "{% for m in messages %}<{{ m.role }}>{{ loop.index }}{{ m.content }}<eos>{% endfor %}": "",
    "{% for m in messages %}{{ m.role }}: {{ m.content }}<eos>{% endfor %}": "assistant:",
    "{% for m in messages %}{{ '\"▁\\\\' ~ m.role }}\n{{ m.content }}<eos>{% endfor %}\n": '"▁\\assistant\n',
    # Thinking, and the tag that opens it, are the assistant's.
    "{% for m in messages %}<{{ m.role }}>\n{% if m.role == 'assistant' %}<think>\n{{ m.reasoning_content or '' }}\n"
    "</think>\n\n{% endif %}{{ m.content }}<eos>{% endfor %}": "<assistant>\n",
    "{% if messages[0].role != 'system' %}{{ raise_exception('no system') }}{% endif %}" + IGNORING: "<assistant>\n",
}


@pytest.mark.parametrize(("template", "header"), HEADERS.items())
def test_only_a_constant_header_becomes_the_generation_prompt(template, header):
    format_ = ChatFormat(make_tokenizer(template), {})
    asked = turns(("s", "be"), ("u", "hi"))
    without, prompt = (format_.text(asked, "row 1", {}, add_generation_prompt=asks) for asks in (False, True))
    assert prompt == without + header
    assert (format_.tokenizer.chat_template == template) == (not header)
    if header:
        assert demonstration(format_, [*asked, *turns(("a", "yes"))], 2, "row 1").prompt_text == prompt


def test_every_named_template_gets_its_generation_prompt():
    format_ = ChatFormat(make_tokenizer({"default": IGNORING, "tool_use": "{{ tools }}" + IGNORING}), {})
    hi = turns(("u", "hi"))
    assert format_.prompt_text(hi) == "<user>\nhi<eos>\n<assistant>\n"
    assert format_.prompt_text(hi, given={"tools": [{"name": "be"}]}).endswith("<user>\nhi<eos>\n<assistant>\n")


@pytest.mark.parametrize("template", [PLAIN_TEMPLATE, GENERATION_TEMPLATE, FORGETFUL_TEMPLATE])
def test_a_template_that_prompts_stays_as_it_is(template):
    assert ChatFormat(make_tokenizer(template), {}).tokenizer.chat_template == template
