import pytest
from tiny_tokenizers import FORGETFUL_TEMPLATE, ids, make_tokenizer

from sharpen.data.demonstrations import load_demonstrations
from sharpen.data.prompt_format import PromptFormat
from sharpen.data.rows import read_rows
from sharpen.errors import DataError
from sharpen.types import Finish


def says(role, content):
    return {"role": role, "content": content}


HI, YES = says("user", "hi"), says("assistant", "yes")


def load(rows, tokenizer, **options):
    return load_demonstrations(read_rows(rows, name="d"), PromptFormat(tokenizer, **{"context_length": 20} | options))


def only(rows, tokenizer, **options):
    (group,) = load(rows, tokenizer, **options).items
    (completion,) = group.trajectories
    return group.prompt, completion


def test_text_is_tokenised_apart_and_ends_with_eos(plain):
    prompt, completion = only([{"prompt": "hi", "completion": "yes"}], plain)
    assert (prompt.id, prompt.token_ids) == ("d:1", ids("hi"))
    assert completion.token_ids == ids("yes <eos>")
    assert completion.loss_mask == (True, True)
    assert (completion.text, completion.last.finish) == ("yes", Finish.EOS)


def test_eos_is_not_doubled(plain):
    _, completion = only([{"prompt": "hi", "completion": "yes<eos>"}], plain)
    assert completion.token_ids == ids("yes <eos>")


@pytest.mark.parametrize(
    ("row", "chat_option"),
    [
        ({"prompt": "hi", "completion": "yes"}, True),
        ({"prompt": [HI], "completion": [YES]}, False),
        ({"messages": [HI, YES]}, False),
    ],
)
def test_three_ways_to_write_a_chat(chat, row, chat_option):
    prompt, completion = only([row], chat, chat=chat_option)
    assert prompt.token_ids == ids(r"<user> hi <eos> \n <assistant>")
    assert (completion.token_ids, completion.loss_mask) == (ids("yes <eos>"), (True, True))
    assert (completion.text, prompt.row) == ("yes", row)


def test_the_loss_mask_of_several_turns(chat):
    messages = [HI, YES, says("user", "why"), says("assistant", "no")]
    _, completion = only([{"messages": messages}], chat)
    assert completion.token_ids == ids(r"yes <eos> \n <user> why <eos> \n <assistant> no <eos>")
    assert completion.loss_mask == (True,) * 2 + (False,) * 6 + (True,) * 2


def test_earlier_turns_in_the_prompt_are_not_imitated(chat):
    row = {"prompt": [HI, YES, says("user", "why")], "completion": [says("assistant", "no")]}
    prompt, completion = only([row], chat)
    assert len(prompt.token_ids) == 13
    assert completion.token_ids == ids("no <eos>")


def test_overlong_demonstrations(plain):
    rows = [{"prompt": "hi", "completion": "yes"}, {"prompt": "hi", "completion": "yes no"}]
    with pytest.raises(DataError, match=r"d, row 2: .* 3 tokens: its prompt has 1 tokens and its completion 4"):
        load(rows, plain, context_length=3)
    loaded = load(rows, plain, context_length=3, overlong="drop")
    assert ([group.prompt.id for group in loaded.items], loaded.dropped) == (["d:1"], 1)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "hi", "completions": "yes"}, r"d: no column `completion`; .* Did you mean `completions`"),
        ({"text": "hi"}, r"d: no column `prompt` or `messages`; it has `text`"),
        ({"prompt": "hi", "completion": ""}, r"d, row 1: column `completion` is empty"),
        ({"prompt": "hi", "completion": 1}, r"d, row 1: column `completion` must be a string, not int"),
        ({"messages": [HI]}, r"d, row 1: column `messages` has no assistant turn"),
        ({"messages": [YES]}, r"d, row 1: column `messages` begins with an assistant turn"),
        ({"prompt": [HI], "completion": "yes"}, r"d, row 1: column `completion` must be a list of messages"),
        (
            {"prompt": [HI], "completion": [HI]},
            r"d, row 1: column `completion` must begin with .* not one of 'user'",
        ),
    ],
)
def test_bad_rows_are_named(chat, row, message):
    with pytest.raises(DataError, match=message):
        load([row], chat)


def test_a_tokenizer_without_eos_is_refused():
    with pytest.raises(DataError, match="no end-of-sequence token"):
        load([{"prompt": "hi", "completion": "yes"}], make_tokenizer(eos=None))


def test_a_conversation_of_several_samples_has_one_message_for_each_turn():
    """The template drops earlier thinking, of which every answer here has ``hmm``."""
    messages = [HI, YES, says("user", "why"), says("assistant", "no")]
    prompt, trajectory = only([{"messages": messages}], make_tokenizer(FORGETFUL_TEMPLATE))
    first, second = trajectory.samples
    assert (first.prefix_ids, first.token_ids) == (prompt.token_ids, ids(r"<think> hmm \n yes <eos>"))
    assert second.prefix_ids == ids(r"<user> hi <eos> \n <assistant> yes <eos> \n <user> why <eos> \n <assistant>")
    assert second.token_ids == ids(r"<think> hmm \n no <eos>")
    said = [message["content"].split() for message in trajectory.messages]
    # As a rollout has them: special tokens are text, ends are not.
    assert said == [["<think>", "hmm", "yes"], ["why"], ["<think>", "hmm", "no"]]
    assert [message["role"] for message in trajectory.messages] == ["assistant", "user", "assistant"]
    assert (trajectory.text, trajectory.drawn) == (trajectory.messages[-1]["content"], 10)


def test_each_sample_must_fit_into_the_context_by_itself():
    """The first has 5 + 5 tokens, the second 13 + 5."""
    rows = [{"messages": [HI, YES, says("user", "why"), says("assistant", "no")]}]
    tokenizer = make_tokenizer(FORGETFUL_TEMPLATE)
    assert load(rows, tokenizer, context_length=18).dropped == 0
    message = r"context of 17 tokens: before its last turn are 13 tokens and its completion has 5"
    with pytest.raises(DataError, match=message):
        load(rows, tokenizer, context_length=17)


@pytest.mark.parametrize("nothing", ["", " ", "\n"])
def test_an_answer_that_says_nothing_is_an_error_in_every_form(chat, nothing):
    empty = says("assistant", nothing)
    for row, what in (
        ({"prompt": "hi", "completion": nothing}, "column `completion`"),
        ({"prompt": [HI], "completion": [empty]}, "column `completion`"),
        ({"messages": [HI, empty]}, "column `messages`"),
        ({"messages": [HI, YES, says("user", "why"), empty]}, r"message 4 \(assistant\)"),
        ({"messages": [HI, empty, says("user", "why"), YES]}, r"message 2 \(assistant\)"),
    ):
        with pytest.raises(DataError, match=f"^d, row 1: {what} is empty; write at least one token"):
            load([row], chat)


def test_an_empty_answer_in_the_prompt_is_only_read(chat):
    row = {"prompt": [HI, says("assistant", ""), says("user", "why")], "completion": [YES]}
    _, completion = only([row], chat)
    assert completion.token_ids == ids("yes <eos>")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (5, r"`content` must be a text or a list of text parts, not int \(5\)"),
        (["yes"], r"part 1 of `content` must be an object like .*, not str \('yes'\)"),
        ({"text": "yes"}, "`content` must be a text or a list of text parts, not dict"),
        ([{"type": "text"}], "part 1 of `content`: `text` must be a string, not NoneType"),
    ],
)
def test_an_answer_that_is_no_text_is_an_error_with_row_and_message(chat, content, complaint):
    with pytest.raises(DataError, match=rf"^d, row 1: message 2 \(assistant\): {complaint}"):
        load([{"messages": [HI, says("assistant", content)]}], chat)
