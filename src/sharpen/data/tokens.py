"""Texts as the tokens that a model would write, and tokens as the text that a person would read."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from weakref import WeakKeyDictionary

from transformers import PreTrainedTokenizerBase

_CHARACTERS = "0123456789abcxyz=+.,:;"
_ANCHORS = ("\n", "=", ":", ".", "a", "0")
"""What stands in for the text before, where that is tokenised in another way once the text goes on."""

_BORDER_TOKENS = 64
_BORDER_CHARACTERS = 8

_keeping_text: WeakKeyDictionary[PreTrainedTokenizerBase, bool] = WeakKeyDictionary()


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """The tokens of each text alone, several times faster than one by one; no special token is added."""
    if not texts:
        return []
    encoded = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
    return [tuple(ids) for ids in encoded["input_ids"]]


def prompt_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """The tokens of each plain text as the beginning of what a model reads.

    Before it come the special tokens that the tokenizer begins a text with, such as BOS, unless the text begins with
    the first of them itself. Those that it ends a text with, such as EOS, are left out, because the text goes on.
    """
    found, opening = token_ids(tokenizer, texts), _opening(tokenizer)
    return [ids if ids[:1] == opening[:1] else (*opening, *ids) for ids in found] if opening else found


def continuations(
    tokenizer: PreTrainedTokenizerBase,
    before: Sequence[str],
    before_ids: Sequence[Sequence[int]],
    texts: Sequence[str],
) -> list[tuple[int, ...]]:
    """The token ids of each text where it follows the text in ``before``, whose ``before_ids`` stay as they are.

    For byte-level BPE they are those of the text alone. SentencePiece would put a blank before it and WordPiece would
    begin a word, so there they are what comes after ``before_ids`` when both texts are tokenised as one. If a token
    then spans both, the text is tokenised behind an anchor that ends with a token, provided that ``before_ids`` and
    the result read as both texts. Where nothing does, because the tokenizer drops blanks or letters, the text stands
    alone.
    """
    alone = token_ids(tokenizer, texts)
    if _keeps_text(tokenizer):
        return alone
    wholes = token_ids(tokenizer, [first + text for first, text in zip(before, texts, strict=True)])
    return [
        _after(tokenizer, ids, whole) or _anchored(tokenizer, first, ids, text, whole, fallback)
        for first, ids, text, whole, fallback in zip(before, before_ids, texts, wholes, alone, strict=True)
    ]


def continuation(
    tokenizer: PreTrainedTokenizerBase, before: str, before_ids: Sequence[int], text: str
) -> tuple[int, ...]:
    """`continuations` of one text."""
    return continuations(tokenizer, [before], [before_ids], [text])[0]


def visible_texts(
    tokenizer: PreTrainedTokenizerBase, rows: Sequence[Sequence[int]], hidden: Collection[int]
) -> list[str]:
    """The texts of these tokens without those in ``hidden``, the ends of sequences and padding.

    Other special tokens, such as ``<think>``, are text. An id without a token, as of a model with more rows in its
    embedding than its tokenizer has tokens, is not.
    """
    shown = [[token_id for token_id in row if token_id not in hidden] if hidden else list(row) for row in rows]
    return list(map(str, tokenizer.batch_decode(shown, clean_up_tokenization_spaces=False)))


def visible_text(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int], hidden: Collection[int]) -> str:
    """`visible_texts` of one row."""
    return visible_texts(tokenizer, [token_ids], hidden)[0]


def special_ids(tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that the tokenizer calls special, by a role or when they were added."""
    added = tokenizer.added_tokens_decoder
    return frozenset(tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}


def hidden_ids(tokenizer: PreTrainedTokenizerBase, ends: Collection[int] = ()) -> frozenset[int]:
    """The special tokens that are no text: padding, the ends of sequences and turns, and the token for unknown text.

    These are the tokenizer's own and ``ends``, a model's. An end that is an ordinary token of the vocabulary, such as a
    line break, is text.
    """
    named = (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id, *ends)
    special = {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}
    return frozenset(token_id for token_id in named if token_id in special)


def _opening(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The special tokens that the tokenizer puts before a text."""
    for character in _CHARACTERS:
        [alone] = token_ids(tokenizer, [character])
        whole = tuple(tokenizer(character, verbose=False)["input_ids"])
        for start in range(len(whole) - len(alone) + 1 if alone else 0):
            if whole[start : start + len(alone)] == alone:
                return whole[:start]
    return ()


def _keeps_text(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether texts that are tokenised one by one read as written when their tokens are put together.

    So it is for byte-level BPE. The answer comes from characters that the tokenizer knows.
    """
    known = _keeping_text.get(tokenizer)
    if known is None:
        found = [text for text in (*_CHARACTERS, " ", "\n") if _read(tokenizer, text).strip(" ") == text.strip(" ")]
        letters = [text for text in found if text in _CHARACTERS][:4]
        pieces = [*letters, *(blank + letters[0] for blank in (" ", "\n") if letters and blank in found)]
        ids = token_ids(tokenizer, pieces)
        known = len(letters) > 1 and _decoded(tokenizer, [i for piece in ids for i in piece]) == "".join(pieces)
        _keeping_text[tokenizer] = known
    return known


def _read(tokenizer: PreTrainedTokenizerBase, text: str) -> str:
    return _decoded(tokenizer, token_ids(tokenizer, [text])[0])


def _decoded(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return visible_text(tokenizer, ids, ())


def _after(tokenizer: PreTrainedTokenizerBase, before_ids: Sequence[int], whole: tuple[int, ...]) -> tuple[int, ...]:
    """What comes after ``before_ids`` in the whole, to which no special tokens were added; empty if it differs."""
    special = tokenizer.all_special_ids
    before = tuple(before_ids)
    while whole[: len(before)] != before:
        if not before or before[0] not in special:
            return ()
        before = before[1:]
    # One unknown token may stand for the end of the text before and for the beginning of what follows.
    return () if before[-1:] == (tokenizer.unk_token_id,) else whole[len(before) :]


def _anchored(
    tokenizer: PreTrainedTokenizerBase,
    before: str,
    before_ids: Sequence[int],
    text: str,
    whole: Sequence[int],
    alone: tuple[int, ...],
) -> tuple[int, ...]:
    """The text's tokens after an anchor that read right after ``before_ids``, else ``alone``."""
    # Only the border matters, so the end of the text before is enough.
    border, tail = before_ids[-_BORDER_TOKENS:], before[-_BORDER_CHARACTERS:]
    canonical = _decoded(tokenizer, whole)[-len(tail + text) :]
    for wanted in (tail + text, canonical):
        for ids in (*_candidates(tokenizer, text), alone):
            if _decoded(tokenizer, [*border, *ids]).endswith(wanted):
                return ids
    return alone


def _candidates(tokenizer: PreTrainedTokenizerBase, text: str) -> Iterator[tuple[int, ...]]:
    anchors = token_ids(tokenizer, _ANCHORS)
    both = token_ids(tokenizer, [anchor + text for anchor in _ANCHORS])
    for anchor, ids in zip(anchors, both, strict=True):
        if anchor and len(ids) > len(anchor) and ids[: len(anchor)] == anchor:
            yield ids[len(anchor) :]
