import pytest
from tiny_tokenizers import ids, make_tokenizer

from sharpen.data.prompt_format import PromptFormat
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import read_rows
from sharpen.errors import DataError, RecipeError

HI = [{"role": "user", "content": "hi"}]
YES = [{"role": "assistant", "content": "yes"}]


def load(rows, tokenizer, max_new_tokens=4, **options):
    format = PromptFormat(tokenizer, **{"context_length": 10} | options)
    return load_prompts(read_rows(rows, name="d.jsonl"), format, max_new_tokens=max_new_tokens)


def test_plain_text(plain):
    (prompt,) = load([{"prompt": "hi", "answer": 3}], plain).items
    assert (prompt.id, prompt.token_ids, prompt.text) == ("d.jsonl:1", ids("hi"), "hi")
    assert prompt.row == {"prompt": "hi", "answer": 3}


def test_plain_text_as_a_chat(chat):
    (prompt,) = load([{"prompt": "hi"}], chat, chat=True).items
    assert prompt.token_ids == ids(r"<user> hi <eos> \n <assistant>")
    assert prompt.text == "<user>hi<eos>\n<assistant>"


def test_messages_as_prompt_or_messages(chat):
    for column in ("prompt", "messages"):
        loaded = load([{column: HI}], chat, system="be", context_length=13)
        assert loaded.items[0].token_ids == ids(r"<system> be <eos> \n <user> hi <eos> \n <assistant>")


def test_overlong_prompts(plain):
    rows = [{"prompt": "hi"}, {"prompt": "hi hi hi hi"}, {"prompt": "no"}]
    with pytest.raises(
        DataError, match=r"d\.jsonl, row 2: .* 10 tokens: its prompt has 7 tokens and max_new_tokens is 4\."
    ) as raised:
        load(rows, plain)
    assert "`overlong: drop`" in str(raised.value)
    loaded = load(rows, plain, overlong="drop")
    assert [prompt.id for prompt in loaded.items] == ["d.jsonl:1", "d.jsonl:3"]
    assert loaded.dropped == 1
    with pytest.raises(DataError, match=r"none of the 3 rows fits into 3 tokens"):
        load(rows, plain, context_length=3, overlong="drop")


def test_a_prompt_that_just_fits(plain):
    assert len(load([{"prompt": "hi"}], plain, max_new_tokens=9).items) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"promt": "hi"}, r"d\.jsonl: no column `prompt` or `messages`; .*`promt`. Did you mean `promt`"),
        ({"prompt": 3}, r"d\.jsonl, row 2: column `prompt` must be a string, not int \(3\)"),
        ({"prompt": None}, r"d\.jsonl, row 2: column `prompt` must be a string, not NoneType"),
        ({"prompt": HI}, r"d\.jsonl, row 2: column `prompt` must be a string, not list"),
        ({"prompt": ""}, r"d\.jsonl, row 2: column `prompt` gives a prompt without a token"),
        ({"answer": 3}, r"d\.jsonl, row 2: no column `prompt`, which other rows have"),
    ],
)
def test_bad_text_rows_are_named(plain, row, message):
    first = [] if "promt" in row else [{"prompt": "hi"}]
    with pytest.raises(DataError, match=message):
        load([*first, row], plain)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([], r"row 2: column `messages` has no messages"),
        ([*HI, *YES], r"row 2: column `messages` ends with an assistant turn"),
        ([{"content": "hi"}], r"row 2: message 1 of column `messages` must be an object like"),
        ([*HI, {"role": "user"}], r"row 2: message 2 of column `messages` has no `content`"),
        ("hi", r"row 2: column `messages` must be a list of messages, not str"),
    ],
)
def test_bad_conversations_are_named(chat, messages, message):
    with pytest.raises(DataError, match=message):
        load([{"messages": HI}, {"messages": messages}], chat)


def test_chats_need_a_template_and_a_system_message_needs_a_chat(plain):
    with pytest.raises(DataError, match="has no chat template"):
        load([{"prompt": "hi"}], plain, chat=True)
    with pytest.raises(RecipeError, match=r"set `data\.chat: true`"):
        load([{"prompt": "hi"}], make_tokenizer("x"), system="be")
