"""Token ids as pieces of text that can be shown: special tokens, and what is trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of text as the tokenizer decodes it: one special token, or tokens that are all trained on or all not."""

    text: str
    trained: bool
    special: bool


def spans(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], trained: Sequence[bool] | None = None) -> list[Span]:
    """The tokens' text; nothing of it is trained on unless ``trained`` says so."""
    special = special_ids(tokenizer)
    marks = [False] * len(ids) if trained is None else trained
    # Special tokens stand alone, other tokens of one kind together: a character may need several.
    tokens = list(zip(ids, marks, strict=True))
    found = []
    for (place, is_trained), run in groupby(
        enumerate(tokens), lambda one: (one[0] if one[1][0] in special else -1, one[1][1])
    ):
        text = tokenizer.decode([token_id for _, (token_id, _) in run], skip_special_tokens=False)
        found.append(Span(str(text), is_trained, place >= 0))
    return found


def special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    added = tokenizer.added_tokens_decoder
    return frozenset(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}
