import pytest
from datasets import Dataset
from tiny_tokenizers import FORGETFUL_TEMPLATE, ids, make_tokenizer

from sharpen.data.preferences import load_preferences
from sharpen.data.prompt_format import PromptFormat
from sharpen.data.rows import read_rows
from sharpen.errors import DataError, RecipeError


def says(role, content):
    return {"role": role, "content": content}


HI, YES, NO, WHY = says("user", "hi"), says("assistant", "yes"), says("assistant", "no"), says("user", "why")
CHAT_PROMPT = ids(r"<user> hi <eos> \n <assistant>")


def load(rows, tokenizer, **options):
    return load_preferences(read_rows(rows, name="d"), PromptFormat(tokenizer, **{"context_length": 30} | options))


def only(row, tokenizer, **options):
    (group,) = load([row], tokenizer, **options).items
    return group


def tokens(group):
    return [completion.token_ids for completion in group.trajectories]


def grades(group):
    return [score.total for score in group.scores]


def test_a_pair_of_texts(plain):
    group = only({"prompt": "hi", "chosen": "yes", "rejected": "no<eos>"}, plain)
    assert (group.prompt.id, group.prompt.token_ids) == ("d:1", ids("hi"))
    assert tokens(group) == [ids("yes <eos>"), ids("no <eos>")]
    assert [c.loss_mask for c in group.trajectories] == [(True, True)] * 2
    assert grades(group) == [1.0, 0.0]


def test_the_margin_is_the_difference_of_the_grades(plain):
    rows = [{"prompt": "hi", "chosen": "yes", "rejected": "no", "margin": margin} for margin in (3, 0.5)]
    assert [grades(group) for group in load(rows, plain).items] == [[3.0, 0.0], [0.5, 0.0]]


@pytest.mark.parametrize(
    ("row", "chat_option"),
    [
        ({"prompt": "hi", "chosen": "yes", "rejected": "no"}, True),
        ({"prompt": [HI], "chosen": [YES], "rejected": [NO]}, False),
        ({"prompt": "hi", "chosen": [YES], "rejected": [NO]}, False),
        ({"prompt": "hi", "chosen": [HI, YES], "rejected": [HI, NO]}, False),
        ({"prompt": [HI], "chosen": [HI, YES], "rejected": [HI, NO]}, False),
        ({"chosen": [HI, YES], "rejected": [HI, NO]}, False),
        ({"prompt": "hi", "completions": [[YES], [NO]], "ranks": [1, 2]}, False),
        ({"prompt": "hi", "completions": [[HI, YES], [HI, NO]], "ranks": [1, 2]}, False),
    ],
)
def test_ways_to_write_the_same_chat(chat, row, chat_option):
    group = only(row, chat, chat=chat_option)
    assert group.prompt.token_ids == CHAT_PROMPT
    assert tokens(group) == [ids("yes <eos>"), ids("no <eos>")]
    assert grades(group) == [1.0, 0.0]


def test_the_common_beginning_goes_up_to_the_turn_in_which_they_differ(chat):
    start = [HI, YES, WHY]
    group = only({"chosen": [*start, says("assistant", "ok"), HI, YES], "rejected": [*start, NO]}, chat)
    assert len(group.prompt.token_ids) == 13
    assert tokens(group) == [ids(r"ok <eos> \n <user> hi <eos> \n <assistant> yes <eos>"), ids("no <eos>")]
    assert group.trajectories[0].loss_mask == (True,) * 2 + (False,) * 6 + (True,) * 2


def test_a_difference_in_a_users_turn_is_part_of_the_answers(chat):
    rows = {"chosen": [HI, YES, WHY, YES], "rejected": [HI, YES, says("user", "be"), NO]}
    group = only(rows, chat)
    assert group.prompt.token_ids == CHAT_PROMPT
    assert [sum(c.loss_mask) for c in group.trajectories] == [4, 4]


def test_a_system_message_before_the_prompt(chat):
    system = says("system", "be")
    group = only({"prompt": "hi", "chosen": [system, HI, YES], "rejected": [system, HI, NO]}, chat)
    assert group.prompt.token_ids == ids(r"<system> be <eos> \n") + CHAT_PROMPT
    own = only({"prompt": "hi", "chosen": "yes", "rejected": "no"}, chat, chat=True, system="be")
    assert own.prompt.token_ids == group.prompt.token_ids


def test_scores_and_ranks_with_ties(plain):
    row = {"prompt": "hi", "completions": ["yes", "no", "ok"]}
    scored = only({**row, "scores": [-1, 2.5, -1]}, plain)
    assert tokens(scored) == [ids("yes <eos>"), ids("no <eos>"), ids("ok <eos>")]
    assert grades(scored) == [-1.0, 2.5, -1.0]
    assert grades(only({**row, "ranks": [3, 1, 1]}, plain)) == [0.0, 2.0, 2.0]


def test_rows_of_different_sizes_keep_their_completions(plain):
    rows = [
        {"prompt": "hi", "completions": ["yes", "no", "ok"], "scores": [1, 2, 3]},
        {"prompt": "why", "completions": ["no", "be"], "scores": [1, 0]},
    ]
    first, second = load(rows, plain).items
    assert tokens(first) == [ids("yes <eos>"), ids("no <eos>"), ids("ok <eos>")]
    assert (second.prompt.token_ids, tokens(second)) == (ids("why"), [ids("no <eos>"), ids("be <eos>")])


def test_the_longest_completion_must_fit(plain):
    rows = [
        {"prompt": "hi", "chosen": "yes", "rejected": "no"},
        {"prompt": "hi", "chosen": "yes", "rejected": "no ok"},
    ]
    with pytest.raises(DataError, match=r"d, row 2: .* of 3 tokens: .* and its longest completion 4\."):
        load(rows, plain, context_length=3)
    loaded = load(rows, plain, context_length=3, overlong="drop")
    assert ([group.prompt.id for group in loaded.items], loaded.dropped) == (["d:1"], 1)


NAN = float("nan")
PAIR = {"prompt": "hi", "chosen": "yes", "rejected": "no"}
LIST = {"prompt": "hi", "completions": ["yes", "no"]}
RANKED = {**LIST, "ranks": [1, 2]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**PAIR, "chosen": ""}, "d, row 1: column `chosen` is empty"),
        ({**PAIR, "prompt": ""}, "d, row 1: column `prompt` is empty"),
        ({**PAIR, "rejected": 3}, "d, row 1: column `rejected` must be a string, not int"),
        ({**PAIR, "rejected": [NO]}, "d, row 1: column `rejected` must be a string, not list"),
        ({**PAIR, "rejected": "yes"}, "d, row 1: column `chosen` and column `rejected` are the same"),
        ({**PAIR, "margin": 0}, "d, row 1: column `margin` is 0; it must be above 0"),
        ({**PAIR, "margin": NAN}, "d, row 1: column `margin` is nan; it must be a finite number"),
        ({**PAIR, "margin": "1"}, "d, row 1: column `margin` must be a number, not str"),
        ({"prompt": "hi", "chosen": "yes"}, "d: no column `rejected`; it has `prompt`, `chosen`"),
        ({"prompt": "hi"}, "d: no column `chosen` or `completions`; it has `prompt`"),
        ({"chosen": "yes", "rejected": "no"}, "d: no column `prompt`; without it"),
        (LIST, "d: no column `scores` or `ranks`"),
        ({**LIST, "scores": [1, 2], "ranks": [2, 1]}, "d: has both `scores` and `ranks`"),
        ({**LIST, "scores": [1, 2, 3]}, "d, row 1: column `scores` has 3 values for 2 completions"),
        ({**LIST, "scores": [1, NAN]}, "d, row 1: column `scores`, entry 2 is nan"),
        ({**LIST, "ranks": [1, 1]}, "d, row 1: column `ranks` ties all completions"),
        ({**LIST, "ranks": 1}, "d, row 1: column `ranks` must be a list of numbers, not int"),
        ({**LIST, "completions": ["yes"], "ranks": [1]}, "d, row 1: column `completions` has 1 completions"),
        ({**RANKED, "completions": ["yes", ""]}, "d, row 1: completion 2 of column `completions` is empty"),
        ({**RANKED, "completions": ["yes", [NO]]}, "completion 2 of column `completions` must be a string"),
        ({**RANKED, "completions": [[YES], "no"]}, "completion 2 of .* must be a list of messages, not str"),
        ({**RANKED, "completions": [{"response": "yes"}, {"response": "no"}]}, "completion 1 of .* must be a text or a "
            "list of messages, not dict.*its keys are response"),
        ({**RANKED, "completions": [[YES], [{"role": "x"}]]}, "message 1 of completion 2 of column `comp"),
        ({"prompt": [HI], "chosen": "yes", "rejected": "no"}, "column `chosen` must be a list of messages, as column"),
        ({"prompt": [HI], "chosen": [YES], "rejected": [WHY]}, "column `chosen` must begin with an assistant turn"),
        ({"prompt": "why", "chosen": [HI, YES], "rejected": [HI, NO]}, "does not begin with a message of the text"),
        ({"chosen": [HI, YES], "rejected": [WHY, NO]}, "`chosen` and column `rejected` have no common beginning"),
        ({"chosen": [HI, YES], "rejected": [HI]}, "have no common beginning"),
        ({"chosen": [HI, YES], "rejected": [HI, YES]}, "column `chosen` and column `rejected` are the same"),
    ],
)  # fmt: skip
def test_bad_rows_are_named(chat, row, message):
    with pytest.raises(DataError, match=message):
        load([row], chat)


def test_what_the_tokenizer_lacks_and_what_a_text_cannot_have():
    with pytest.raises(DataError, match="no end-of-sequence token"):
        load([PAIR], make_tokenizer(eos=None))
    with pytest.raises(RecipeError, match=r"no effect of `data\.system`: the prompts are plain text"):
        load([PAIR], make_tokenizer(), system="be")


def test_conversations_of_arrow_begin_with_their_prompt(chat, tmp_path):
    """Where some answers have calls, Arrow gives every message of their column `tool_calls`, null or not."""
    asked = {"role": "user", "content": "hi"}
    called = {"role": "assistant", "content": "yes", "name": "a"}
    row = {"prompt": [asked], "chosen": [asked, called], "rejected": [asked, {"role": "assistant", "content": "no"}]}
    Dataset.from_list([row]).to_parquet(tmp_path / "d.parquet")
    (group,) = load_preferences(read_rows(tmp_path / "d.parquet"), PromptFormat(chat, 1000)).items
    assert group.prompt.token_ids == ids(r"<user> hi <eos> \n <assistant>")
    assert [t.token_ids for t in group.trajectories] == [ids("yes <eos>"), ids("no <eos>")]


def test_answers_that_differ_only_in_what_is_read_between_them_are_not_the_same():
    """The template drops earlier thinking, so that the question between the answers is in a prefix."""
    asks = (says("user", "ok"), says("user", "be"))
    row = {"prompt": [HI], "chosen": [YES, asks[0], NO], "rejected": [YES, asks[1], NO]}
    first, second = only(row, make_tokenizer(FORGETFUL_TEMPLATE)).trajectories
    assert first.token_ids == second.token_ids
    assert [len(t.samples) for t in (first, second)] == [2, 2]
    with pytest.raises(DataError, match="are the same"):
        only({**row, "rejected": row["chosen"]}, make_tokenizer(FORGETFUL_TEMPLATE))


def test_a_conversation_in_parts_begins_with_the_text_of_its_prompt(chat):
    parts = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    group = only({"prompt": "hi", "chosen": [*parts, YES], "rejected": [*parts, NO]}, chat)
    assert group.prompt.token_ids == CHAT_PROMPT
    assert tokens(group) == [ids("yes <eos>"), ids("no <eos>")]


def test_a_function_call_is_an_answer(chat):
    """As data sets of OpenAI's first form have it; this template writes none, which is the error."""
    called = {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}}
    with pytest.raises(DataError, match=r"d, row 1: the chat template leaves out the tool calls of message 2"):
        only({"prompt": [HI], "chosen": [called], "rejected": [NO]}, chat)
