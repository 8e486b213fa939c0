"""Ends and padding are no text; other special tokens are."""

import pytest
from transformers import PreTrainedTokenizerFast

from sharpen.data.positions import token_ends
from sharpen.data.prompt_format import PromptFormat
from sharpen.data.rows import read_rows
from sharpen.data.steps import load_steps
from sharpen.data.tokens import hidden_ids, visible_text, visible_texts
from tokenizer_makes import byte_level, sentencepiece_bpe, wordpiece

ALL = [byte_level(), sentencepiece_bpe(legacy=True), sentencepiece_bpe(legacy=False)]


@pytest.mark.parametrize("tokenizer", ALL)
def test_ends_and_padding_go_and_the_rest_stays(tokenizer):
    tokenizer.pad_token = "<unk>"
    text = "<think>12</think>3"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    again = [tokenizer.pad_token_id, *ids, tokenizer.eos_token_id, tokenizer.pad_token_id]
    assert visible_text(tokenizer, again, hidden_ids(tokenizer)).replace(" ", "") == text
    assert visible_texts(tokenizer, [again, []], ())[0].endswith("3</s><unk>")
    assert visible_texts(tokenizer, [], ()) == []


def test_no_blank_before_a_sign_is_lost():
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=wordpiece().backend_tokenizer, clean_up_tokenization_spaces=True, eos_token="</s>"
    )
    ids = tokenizer("hi , yes !", add_special_tokens=False)["input_ids"]
    assert visible_text(tokenizer, ids, ()) == "hi , yes !"


def test_an_end_that_is_an_ordinary_token_is_text():
    tokenizer = byte_level()
    four, end = tokenizer.convert_tokens_to_ids(["4", "</s>"])
    unknown = tokenizer.unk_token_id
    assert hidden_ids(tokenizer, [four]) == {end, unknown}
    assert hidden_ids(tokenizer, [tokenizer.convert_tokens_to_ids("</think>")]) == {end, end + 2, unknown}


def test_an_id_without_a_token_is_no_text():
    tokenizer = byte_level()
    assert visible_text(tokenizer, [*tokenizer("12")["input_ids"], 100_000], ()) == "12"


def test_a_special_token_is_part_of_the_text_that_steps_end_in():
    tokenizer = byte_level()
    ids = tokenizer("<think>1;2</think>;3")["input_ids"]
    text = "<think>1;2</think>;3"
    assert token_ends(ids, (text.index(";") + 1, text.rindex(";") + 1), tokenizer) == (2, 5)


def test_labels_of_steps_with_special_tokens():
    tokenizer = byte_level()
    row = {"prompt": "p", "completion": "<think>1;2</think>;3", "labels": [1, 0, 1]}
    [group] = load_steps(read_rows([row]), PromptFormat(tokenizer, 99), separator=";").items
    # <think> 1 ; 2 </think> ; 3 </s>
    assert [step.position for step in group.trajectories[0].score.steps] == [2, 5, 7]
