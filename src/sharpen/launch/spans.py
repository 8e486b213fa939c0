"""Token ids as pieces of text that can be shown: special tokens, and what is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from transformers import PreTrainedTokenizerBase

from sharpen.data.tokens import special_ids, visible_text

CONTEXT_TOKENS = 32
"""How many of the tokens before are decoded with those that are shown."""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of text as the tokenizer decodes it: one special token, or tokens that are all trained on or all not."""

    text: str
    trained: bool
    special: bool


def spans(
    tokenizer: PreTrainedTokenizerBase,
    ids: Sequence[int],
    trained: Sequence[bool] | None = None,
    *,
    before: Sequence[int] = (),
) -> list[Span]:
    """The text of the tokens where they follow those in ``before``; none is trained on unless ``trained`` says so."""
    special = special_ids(tokenizer)
    marks = [False] * len(ids) if trained is None else trained
    # Special tokens stand alone, other tokens of one kind together: a character may need several.
    tokens = list(zip(ids, marks, strict=True))
    found = []
    read = list(before[-CONTEXT_TOKENS:])
    for (place, is_trained), run in groupby(
        enumerate(tokens), lambda one: (one[0] if one[1][0] in special else -1, one[1][1])
    ):
        these = [token_id for _, (token_id, _) in run]
        found.append(Span(_text_after(tokenizer, read, these), is_trained, place >= 0))
        read = [*read, *these][-CONTEXT_TOKENS:]
    return found


def _text_after(tokenizer: PreTrainedTokenizerBase, before: Sequence[int], ids: Sequence[int]) -> str:
    """What these tokens add to the text of those before: decoded alone, SentencePiece's lose their first blank."""
    start, whole = _decoded(tokenizer, before), _decoded(tokenizer, [*before, *ids])
    return whole[len(start) :] if whole.startswith(start) else _decoded(tokenizer, ids)


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return visible_text(tokenizer, ids, ())
