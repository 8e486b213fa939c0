"""Texts as the tokens that a model would write, and tokens as the text that a person would read."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from transformers import PreTrainedTokenizerBase


def continuation(
    tokenizer: PreTrainedTokenizerBase, before: str, before_ids: Sequence[int], text: str
) -> tuple[int, ...]:
    """The token ids of ``text`` where it follows ``before``, whose token ids ``before_ids`` stay as they are."""
    return tuple(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def visible_texts(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]], hidden: Collection[int]
) -> list[str]:
    """The texts of these tokens without those in ``hidden``, the ends of sequences and padding."""
    shown = [[token_id for token_id in row if token_id not in hidden] for row in rows]
    return list(map(str, tokenizer.batch_decode(shown, skip_special_tokens=True)))


def visible_text(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int], hidden: Collection[int]) -> str:
    """`visible_texts` of one row."""
    return visible_texts(tokenizer, [token_ids], hidden)[0]
