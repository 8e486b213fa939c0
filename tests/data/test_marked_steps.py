import pytest
from tiny_tokenizers import PLAIN_TEMPLATE

from byte_tokenizer import byte_tokenizer
from sharpen.data.prompt_format import PromptFormat
from sharpen.data.rows import read_rows
from sharpen.data.steps import load_steps
from sharpen.errors import DataError
from sharpen.models.character_model import character_tokenizer
from sharpen.types import StepValue


@pytest.fixture
def characters():
    """Every character is a token; the end of the sequence is one more."""
    return character_tokenizer("abc123+-=;# ", context=64)


def load(rows, tokenizer, separator=None, **options):
    format = PromptFormat(tokenizer, **{"context_length": 60} | options)
    return load_steps(read_rows(rows, name="d"), format, separator=separator)


def only(row, tokenizer, **options):
    (group,) = load([row], tokenizer, **options).items
    return group


WRITTEN = {"prompt": "1+2-1=", "labels": [True, False]}
FIRST, SECOND = "1+2=3;", "3-1=1#1"


@pytest.mark.parametrize(
    ("row", "separator"),
    [
        ({**WRITTEN, "steps": [FIRST, SECOND]}, None),
        ({**WRITTEN, "completions": [FIRST, SECOND]}, ";"),
        ({**WRITTEN, "steps": ["1+2=3", SECOND]}, ";"),
        ({**WRITTEN, "completion": FIRST + SECOND}, ";"),
        ({**WRITTEN, "completion": FIRST + SECOND, "positions": [6, 13]}, None),
        ({**WRITTEN, "completion": FIRST + SECOND, "positions": [6, 13]}, "="),
    ],
)
def test_ways_to_write_the_same_steps(characters, row, separator):
    group = only(row, characters, separator=separator)
    (completion,), (score,) = group.trajectories, group.scores
    assert completion.text == "1+2=3;3-1=1#1"
    assert completion.token_ids == (*characters(completion.text)["input_ids"], characters.eos_token_id)
    assert score.steps == (StepValue(5, 1.0), StepValue(13, 0.0))
    assert score.total == 0.0


def test_soft_labels_and_their_least(characters):
    group = only({"prompt": "a", "steps": ["a;", "b;", "c"], "labels": [0.9, 0.25, 1]}, characters)
    assert group.scores[0].steps == (StepValue(1, 0.9), StepValue(3, 0.25), StepValue(5, 1.0))
    assert group.scores[0].total == 0.25


def test_the_last_step_ends_with_the_sequence_wherever_its_position_is(characters):
    group = only({"prompt": "a", "completion": "ab;c", "positions": [3], "labels": [1]}, characters)
    assert group.scores[0].steps == (StepValue(4, 1.0),)


def test_steps_that_end_within_one_token_become_one_with_the_lowest_label():
    tokenizer = byte_tokenizer("b;")
    row = {"prompt": "a", "completion": "ab;c", "positions": [2, 3, 4], "labels": [0.5, 1, 1]}
    group = only(row, tokenizer)
    assert tokenizer.convert_ids_to_tokens(group.trajectories[0].token_ids)[:3] == ["a", "b;", "c"]
    assert group.scores[0].steps == (StepValue(1, 0.5), StepValue(3, 1.0))


def test_steps_within_a_chat_whose_template_writes_something_first():
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<user>", "<assistant>"]})
    tokenizer.chat_template = PLAIN_TEMPLATE.replace(
        "{{ m.content }}", "{% if m.role == 'assistant' %}so {% endif %}{{ m.content }}"
    )
    row = {"prompt": [{"role": "user", "content": "é"}], "steps": ["é;", "b"], "labels": [1, 0]}
    for changed in (row, {**row, "prompt": "é"}):
        group = only(changed, tokenizer, chat=True)
        (completion,) = group.trajectories
        assert completion.text == "so é;b"
        # s, o, blank, two bytes of é, the separator, b, the end of the turn
        assert group.scores[0].steps == (StepValue(5, 1.0), StepValue(7, 0.0))


def test_overlong_rows(characters):
    rows = [{"prompt": "a", "steps": ["b;", "c" * n], "labels": [1, 1]} for n in (1, 2)]
    with pytest.raises(DataError, match=r"d, row 2: .* of 5 tokens: its prompt has 1 tokens and its completion 5"):
        load(rows, characters, context_length=5)
    assert load(rows, characters, context_length=5, overlong="drop").dropped == 1


STEPS = {"prompt": "a", "steps": ["a;", "b"], "labels": [1, 0]}
PLACED = {"prompt": "a", "completion": "a;b", "positions": [2, 3], "labels": [1, 0]}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**STEPS, "labels": [1]}, "d, row 1: column `labels` has 1 labels for 2 steps"),
        ({**STEPS, "labels": [1, 2]}, "d, row 1: column `labels`, entry 2 is 2; it must be from 0 to 1"),
        ({**STEPS, "labels": [1, -1]}, "d, row 1: column `labels`, entry 2 is -1"),
        ({**STEPS, "labels": [1, None]}, "d, row 1: column `labels`, entry 2 must be a number, not NoneType"),
        ({**STEPS, "labels": "10"}, "d, row 1: column `labels` must be a list of numbers, not str"),
        ({**STEPS, "steps": []}, "d, row 1: column `steps` has no steps"),
        ({**STEPS, "steps": ["a;", " "]}, "d, row 1: column `steps`, entry 2 is empty"),
        ({**STEPS, "steps": ["a;", 2]}, "d, row 1: column `steps`, entry 2 must be a string, not int"),
        ({**STEPS, "steps": "a;b"}, "d, row 1: column `steps` must be a list of strings, not str"),
        ({**STEPS, "steps": ["a;", "é"]}, "d, row 1: the tokenizer or the chat template changes the completion's text"),
        ({**STEPS, "prompt": ""}, "d, row 1: column `prompt` is empty"),
        ({**PLACED, "positions": [2, 2]}, r"d, row 1: column `positions` must ascend from above 0: \[2, 2\]"),
        ({**PLACED, "positions": [0, 2]}, "d, row 1: column `positions` must ascend"),
        ({**PLACED, "positions": [2, 4]}, "d, row 1: column `positions` goes to 4, but the completion has 3"),
        ({**PLACED, "positions": [1.5, 3]}, "d, row 1: column `positions` must hold whole numbers"),
        ({**PLACED, "completion": ""}, "d, row 1: column `completion` is empty"),
        ({"prompt": "a", "completion": "a;b", "labels": [1, 0]}, "d: where do the steps of column `completion` end"),
        ({"prompt": "a", "steps": ["a"]}, "d: no column `labels`"),
        ({"steps": ["a"], "labels": [1]}, "d: no column `prompt`"),
        ({"prompt": "a", "labels": [1]}, "d: no column `steps` or `completion`"),
    ],
)
def test_bad_rows_are_named(characters, row, message):
    with pytest.raises(DataError, match=message):
        load([row], characters)
