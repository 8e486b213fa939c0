"""The text of each token: worked out by hand, and together the text of all, whatever the make of the tokenizer."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from api_runs import digit_model
from byte_tokenizer import byte_tokenizer
from sharpen.data.token_texts import TokenTexts
from tokenizer_makes import byte_level, sentencepiece_bpe, unigram, wordpiece

MAKES: dict[str, Callable[[], Any]] = {
    "sentencepiece": lambda: sentencepiece_bpe(legacy=False),
    "sentencepiece legacy": lambda: sentencepiece_bpe(legacy=True),
    "unigram": unigram,
    "wordpiece": wordpiece,
    "byte level": lambda: byte_level("Ġ H", "H i", "y e"),
    "bytes": lambda: byte_tokenizer("ab"),
}


def decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def pieces_of(tokenizer: Any, *tokens: str) -> list[str]:
    ids = tokenizer.convert_tokens_to_ids(list(tokens))
    assert tokenizer.convert_ids_to_tokens(ids) == list(tokens)
    pieces = TokenTexts(tokenizer).of(ids)
    assert "".join(pieces) == decoded(tokenizer, ids)
    return pieces


@pytest.mark.parametrize("make", MAKES)
def test_any_tokens_have_pieces_that_are_their_text(make: str) -> None:
    tokenizer = MAKES[make]()
    texts = TokenTexts(tokenizer)
    for seed in range(200):
        generator = random.Random(seed)
        ids = [generator.randrange(len(tokenizer)) for _ in range(generator.randrange(40))]
        pieces = texts.of(ids)
        assert len(pieces) == len(ids)
        assert "".join(pieces) == (decoded(tokenizer, ids) if ids else "")


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("text", ["yes Hi 13 = ok", "  two\n\nlines ", "é 日本 👩‍🚀", "</s><think>yes</think>"])
def test_a_text_has_pieces_that_are_it(make: str, text: str) -> None:
    tokenizer = MAKES[make]()
    ids = tokenizer(text)["input_ids"]
    assert "".join(TokenTexts(tokenizer).of(ids)) == decoded(tokenizer, ids)


def test_the_tokens_of_the_character_model(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(digit_model(tmp_path / "model"))
    ids = [*tokenizer("12+3=15")["input_ids"], tokenizer.eos_token_id]
    assert TokenTexts(tokenizer).of(ids)[:-1] == ["1", "2", "+", "3", "=", "1", "5"]
    assert "".join(TokenTexts(tokenizer).of(ids)) == decoded(tokenizer, ids)


def test_a_character_belongs_to_the_token_that_completes_it() -> None:
    """é is the bytes C3 A9, 🙂 is F0 9F 99 82."""
    tokenizer = byte_level()
    assert pieces_of(tokenizer, "a", "Ã", "©", "Ġ", "ð", "Ł", "Ļ", "Ĥ", "b") == [
        *("a", "", "é", " ", "", "", "", "🙂", "b")
    ]
    spm = sentencepiece_bpe(legacy=False)
    assert pieces_of(spm, "a", "<0xC3>", "<0xA9>", "▁yes", "<0xF0>", "<0x9F>", "<0x99>", "<0x82>") == [
        *("a", "", "é", " yes", "", "", "", "🙂")
    ]


def test_bytes_that_are_no_character() -> None:
    """SentencePiece decodes bytes in a row together: with one that fits nothing, none of them is a character."""
    spm = sentencepiece_bpe(legacy=False)
    assert pieces_of(spm, "a", "<0xC3>", "<0xA9>", "<0xFF>", "b") == ["a", "�", "�", "�", "b"]
    # Bytes that end the text as well.
    assert pieces_of(spm, "a", "<0xC3>") == ["a", "�"]
    assert pieces_of(byte_level(), "a", "Ã") == ["a", "�"]


def test_special_tokens_are_shown_and_a_blank_belongs_to_its_token() -> None:
    assert pieces_of(sentencepiece_bpe(legacy=False), "<think>", "▁yes", "▁yes", "</s>") == [
        *("<think>", " yes", " yes", "</s>")
    ]
    assert pieces_of(wordpiece(), "play", "##ing", "yes") == ["play", "ing", " yes"]


@pytest.mark.parametrize(("make", "token"), [("bytes", "Ģ"), ("sentencepiece", "<0x80>")])
def test_a_model_that_writes_one_broken_byte_for_ever_costs_no_more_than_another(make: str, token: str) -> None:
    tokenizer = MAKES[make]()
    ids = tokenizer.convert_tokens_to_ids([token] * 4000)
    started = time.perf_counter()
    pieces = TokenTexts(tokenizer).of(ids)
    assert time.perf_counter() - started < 5
    assert "".join(pieces) == decoded(tokenizer, ids) == "�" * 4000
