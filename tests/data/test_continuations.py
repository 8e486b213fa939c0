"""A completion's tokens are those that follow its prompt's, for tokenizers of the four makes."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerFast

from sharpen.data.demonstrations import load_demonstrations
from sharpen.data.preferences import load_preferences
from sharpen.data.prompt_format import PromptFormat
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import read_rows
from sharpen.data.steps import load_steps
from sharpen.data.tokens import continuation
from tokenizer_makes import byte_level, sentencepiece_bpe, unigram, wordpiece

LEGACY, PLAIN = sentencepiece_bpe(legacy=True), sentencepiece_bpe(legacy=False)
LLAMAS = pytest.mark.parametrize("tokenizer", [LEGACY, PLAIN], ids=["legacy", "not legacy"])


def tokens(tokenizer: PreTrainedTokenizerFast, ids: tuple[int, ...]) -> list[str]:
    return tokenizer.convert_ids_to_tokens(list(ids))


def demonstrated(tokenizer: PreTrainedTokenizerFast, prompt: str, completion: str) -> tuple[list[str], list[str]]:
    rows = read_rows([{"prompt": prompt, "completion": completion}])
    [group] = load_demonstrations(rows, PromptFormat(tokenizer, 512)).items
    return tokens(tokenizer, group.prompt.token_ids), tokens(tokenizer, group.trajectories[0].token_ids)


@LLAMAS
@pytest.mark.parametrize(
    ("prompt", "completion", "prompted", "written"),
    [
        ("47+85=", "132", ["▁", *"47+85="], [*"132"]),
        ("47+85=", " 132", ["▁", *"47+85="], ["▁", *"132"]),
        # The prompt ends within what would be one token of the whole.
        ("A: ", "yes", ["▁", "A", ":", "▁"], ["yes"]),
        ("A:", " yes", ["▁", "A", ":"], ["▁yes"]),
        ("o", "k", ["▁", "o"], ["k"]),
        ("a", "\nb", ["▁", "a"], ["<0x0A>", "b"]),
        ("a ", " é", ["▁", "a", "▁"], ["▁", "<0xC3>", "<0xA9>"]),
    ],
)
def test_sentencepiece_completions_go_on_with_the_prompt(tokenizer, prompt, completion, prompted, written):
    assert demonstrated(tokenizer, prompt, completion) == (["<s>", *prompted], [*written, "</s>"])
    ids = tokenizer.convert_tokens_to_ids([*prompted, *written])
    assert tokenizer.decode(ids) == prompt + completion


@LLAMAS
def test_so_do_preferences_and_marked_steps(tokenizer):
    form = PromptFormat(tokenizer, 512)
    pair = read_rows([{"prompt": "1+1=", "chosen": "2", "rejected": " 2"}])
    [group] = load_preferences(pair, form).items
    written = [tokens(tokenizer, one.token_ids) for one in group.trajectories]
    assert written == [["2", "</s>"], ["▁", "2", "</s>"]]
    steps = read_rows([{"prompt": "1+1=", "completion": " 2;3;4", "labels": [1, 0, 1]}])
    [group] = load_steps(steps, form, separator=";").items
    [marked] = group.trajectories
    assert tokens(tokenizer, marked.token_ids) == ["▁", "2", ";", "3", ";", "4", "</s>"]
    assert [(step.position, step.value) for step in marked.score.steps] == [(2, 1), (4, 0), (6, 1)]


@pytest.mark.parametrize(
    ("tokenizer", "before", "text", "written"),
    [
        (unigram(), "47+85=", "132", ["1", "3", "2"]),
        (unigram(), "47+85= ", "132", ["▁13", "2"]),
        (unigram(), "A:", "yes", ["yes"]),
        (unigram(), "A: ", "yes", ["▁yes"]),
        (wordpiece(), "47+85=", "132", ["132"]),
        (wordpiece(), "47 ", "132", ["132"]),
        (wordpiece(), "play", "ing", ["##ing"]),
        (byte_level("Ġ y"), "A:", " yes", ["Ġy", "e", "s"]),
        (byte_level("Ġ y"), "A: ", "yes", ["y", "e", "s"]),
        (byte_level("Ġ y", add_prefix_space=True), "A:", "yes", ["y", "e", "s"]),
        (byte_level("Ġ y", add_prefix_space=True), "A: ", "yes", ["y", "e", "s"]),
    ],
)
def test_the_other_makes(tokenizer, before, text, written):
    [prompt] = load_prompts(read_rows([{"prompt": before}]), PromptFormat(tokenizer, 512), max_new_tokens=1).items
    assert tokens(tokenizer, continuation(tokenizer, before, prompt.token_ids, text)) == written


@LLAMAS
def test_after_a_special_token_a_text_goes_on_as_the_tokenizer_writes_it(tokenizer):
    before = tuple(tokenizer("a<think>")["input_ids"])
    written = tokens(tokenizer, continuation(tokenizer, "a<think>", before, "Hi"))
    assert written == (["▁Hi"] if tokenizer is LEGACY else ["Hi"])


def test_what_a_tokenizer_cannot_say_stands_alone():
    tokenizer = wordpiece()
    assert demonstrated(tokenizer, "Hi ♥", "♥ Yes") == (["<s>", "hi", "<unk>"], ["<unk>", "yes", "</s>"])


@pytest.mark.parametrize("make", [sentencepiece_bpe, byte_level])
def test_a_prompt_that_begins_with_bos_gets_no_second_one(make):
    tokenizer = make(**({"legacy": False} if make is sentencepiece_bpe else {}), begins=True)
    rows = read_rows([{"prompt": "<s>12"}, {"prompt": "12"}])
    given, bare = load_prompts(rows, PromptFormat(tokenizer, 512), max_new_tokens=1).items
    assert tokens(tokenizer, given.token_ids).count("<s>") == tokens(tokenizer, bare.token_ids).count("<s>") == 1
    assert demonstrated(tokenizer, "<s>12", "3")[0] == tokens(tokenizer, given.token_ids)
    assert demonstrated(tokenizer, "<s>12", "3")[1] == ["3", "</s>"]


@pytest.mark.parametrize(
    "tokenizer", [wordpiece(ends=True), sentencepiece_bpe(legacy=False, ends=True), unigram(ends=True)]
)
def test_a_prompt_does_not_end_with_the_token_that_ends_a_text(tokenizer):
    """Some tokenizers put EOS or [SEP] behind every text: nothing is written after that."""
    assert tokens(tokenizer, tuple(tokenizer("47")["input_ids"]))[-1] == "</s>"
    prompt, completion = demonstrated(tokenizer, "47", "132")
    assert prompt[-1] != "</s>"
    assert completion[-1] == "</s>"
    [alone] = load_prompts(read_rows([{"prompt": "47"}]), PromptFormat(tokenizer, 512), max_new_tokens=1).items
    assert tokens(tokenizer, alone.token_ids) == prompt
