"""Templates × conversations: the rendered text, what is trained on and the end, or the true reason why not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from families import FAMILIES
from family import CONVERSATIONS, DATE, Family, Rejected
from trained_tokenizers import MAKES, marked
from transformers import PreTrainedTokenizerFast

from sharpen.data.chat import turn_end
from sharpen.data.demonstrations import load_demonstrations
from sharpen.data.prompt_format import PromptFormat
from sharpen.data.rows import read_rows
from sharpen.errors import DataError

CASES = [(name, conversation) for name, family in FAMILIES.items() for conversation in family.expected]


def format_of(family: Family, tokenizer: PreTrainedTokenizerFast, **options: Any) -> PromptFormat:
    return PromptFormat(
        tokenizer,
        context_length=4096,
        chat_template_kwargs=family.arguments,
        date=DATE,
        eos_ids=frozenset(tokenizer.convert_tokens_to_ids([s for s in family.stops if s in tokenizer.get_vocab()])),
        **options,
    )


def samples_of(family: Family, tokenizer: PreTrainedTokenizerFast, row: dict[str, Any]) -> list[str]:
    rows = read_rows([row], name="talk")
    (group,) = load_demonstrations(rows, format_of(family, tokenizer)).items
    (trajectory,) = group.trajectories
    return [marked(tokenizer, sample) for sample in trajectory.samples]


@pytest.mark.parametrize(("name", "conversation"), CASES)
def test_a_conversation_becomes_what_the_model_would_read_and_write(name: str, conversation: str) -> None:
    family = FAMILIES[name]
    expected = family.expected[conversation]
    row = CONVERSATIONS[conversation]
    if isinstance(expected, Rejected):
        with pytest.raises(DataError, match=rf"(?s)^talk, row 1: .*({expected.why})"):
            samples_of(family, family.tokenizer(name), row)
    else:
        found = samples_of(family, family.tokenizer(name), row)
        assert found == ([expected] if isinstance(expected, str) else [*expected])


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize("name", FAMILIES)
def test_the_make_of_the_tokenizer_changes_nothing_of_that(name: str, make: str) -> None:
    family = FAMILIES[name]
    conversation = "two" if "two" in family.expected else "thinking"
    expected = family.expected[conversation]
    assert not isinstance(expected, Rejected)
    samples = [expected] if isinstance(expected, str) else [*expected]
    found = samples_of(family, family.tokenizer(name, make), CONVERSATIONS[conversation])
    if name == "ernie4_5" and make in ("unigram", "wordpiece"):
        # The blank is no part of another token: the second prompt goes on where the first answer ends.
        samples = [samples[1].replace("yes<|end_of_sentence|>", "«yes<|end_of_sentence|>»")]
    special = [*family.special, family.bos or family.eos, family.eos]
    assert [seen_by(make, text, special) for text in found] == [seen_by(make, text, special) for text in samples]


def seen_by(make: str, text: str, special: Sequence[str]) -> str:
    """A text without what the make does not tell apart: WordPiece all blanks, unigram one after a special token."""
    if make == "wordpiece":
        return "".join(text.split())
    if make == "unigram":
        return re.sub(f"({'|'.join(map(re.escape, special))})([«»]?) ", r"\1\2", text)
    return text


@pytest.mark.parametrize("name", FAMILIES)
def test_what_ends_a_turn_is_learned_from_the_template(name: str) -> None:
    family = FAMILIES[name]
    tokenizer = family.tokenizer(name)
    chat = format_of(family, tokenizer).chat_format(conversational=True)
    assert chat is not None
    ends = {str(tokenizer.convert_ids_to_tokens(token_id)) for token_id in turn_end(chat).token_ids}
    assert ends == {*family.ends}
