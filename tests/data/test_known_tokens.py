"""Text that cannot be tokenised, and tokens that the model or the tokenizer does not know."""

import json

import pytest

from sharpen.data.demonstrations import load_demonstrations
from sharpen.data.prompt_format import PromptFormat
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import read_rows
from sharpen.errors import DataError
from tokenizer_makes import byte_level, wordpiece

HALF = json.loads('"ab\\ud800"')


@pytest.mark.parametrize("row", [{"prompt": HALF}, {"prompt": "1", "x": [{"content": HALF}]}, {"prompt": "1", HALF: 1}])
def test_half_of_a_surrogate_pair_names_its_row(row):
    with pytest.raises(DataError, match=r"^d, row 2: .*ab\\ud800' holds half of a surrogate pair"):
        read_rows([{"prompt": "1"}, row], name="d")


def test_a_token_without_an_embedding_names_its_row_and_both_numbers():
    tokenizer = byte_level()
    tokens = len(tokenizer)
    think = tokenizer.convert_tokens_to_ids("</think>")
    assert think == tokens - 1
    rows = [{"prompt": "1", "completion": "2"}, {"prompt": "1", "completion": "2</think>"}]
    enough = PromptFormat(tokenizer, 99, embedding_rows=tokens)
    assert len(load_demonstrations(read_rows(rows), enough).items) == 2
    less = PromptFormat(tokenizer, 99, embedding_rows=tokens - 1)
    # What no row uses does no harm.
    assert len(load_demonstrations(read_rows(rows[:1]), less).items) == 1
    reason = (
        rf"^d, row 2: the token '</think>' has the id {think}, and this model has embeddings for ids below "
        rf"{tokens - 1} only, while its tokenizer has {tokens} tokens"
    )
    with pytest.raises(DataError, match=reason):
        load_demonstrations(read_rows(rows, name="d"), less)
    with pytest.raises(DataError, match=r"^d, row 1: the token '</think>'"):
        load_prompts(read_rows([{"prompt": "2</think>"}], name="d"), less, max_new_tokens=1)


def prompts(*texts: str):
    rows = read_rows([{"prompt": text} for text in texts], name="d")
    return load_prompts(rows, PromptFormat(wordpiece(), 200), max_new_tokens=1)


def test_a_script_that_the_tokenizer_does_not_know():
    with pytest.raises(DataError, match=r"^d, row 1: all its tokens, and those of every other row, are <unk>"):
        prompts("♥", "♥ ♠")
    # <s> hi ♥, <s> ♥ ♠: 3 of 6 tokens.
    warning = prompts("hi ♥", "♥ ♠").warning
    assert warning is not None
    assert warning.startswith("50.0% of the tokens are <unk>")
    assert "in 1 of 2 rows all are (first in d, row 2)" in warning
    assert prompts("hi yes").warning is None
    # <s>, 98 known tokens and one unknown: 1 %, which is not too much; with a known one less it is.
    assert prompts(" ".join(["hi"] * 98 + ["♥"])).warning is None
    assert prompts(" ".join(["hi"] * 97 + ["♥"])).warning is not None


def test_an_end_of_text_that_is_called_unknown_too_is_known():
    tokenizer = byte_level()
    tokenizer.unk_token = tokenizer.eos_token
    rows = read_rows([{"prompt": "1", "completion": "2"}])
    assert load_demonstrations(rows, PromptFormat(tokenizer, 99)).warning is None
