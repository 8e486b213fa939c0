"""Where the steps of a completion end: in characters, and in tokens."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from itertools import pairwise

from transformers import PreTrainedTokenizerBase


def step_ends(text: str, separator: str) -> tuple[int, ...]:
    """The character offsets at which the steps of ``text`` end: each after its separator, the last with the text.

    What stands blank between two separators is no step of its own; blanks after the last separator belong to
    the last step. A text without a separator is one step.
    """
    ends: list[int] = []
    start = 0
    while (found := text.find(separator, start)) >= 0:
        end = found + len(separator)
        if text[start:found].strip():
            ends.append(end)
        start = end
    if text[start:].strip() or not ends:
        return (*ends, len(text))
    return (*ends[:-1], len(text))


def token_ends(
    token_ids: Sequence[int], char_ends: Sequence[int], tokenizer: PreTrainedTokenizerBase
) -> tuple[int, ...]:
    """For each character offset of the decoded text the index of the token that completes it.

    It is the first token whose decoded prefix begins with the text up to the offset. A character of several tokens
    (bytes) is complete with its last one, except U+FFFD, as which all incomplete ones are decoded. Special tokens are
    no text. Offsets are in rising order.

    Raises ValueError for an offset that lies outside the text or is not above the one before.
    """
    text = _decode(tokenizer, token_ids)
    if any(later <= earlier for earlier, later in pairwise((0, *char_ends))) or (
        char_ends and char_ends[-1] > len(text)
    ):
        raise ValueError(
            f"ends {list(char_ends)} of a text of {len(text)} characters: each must be above the one before"
        )

    def first_to_reach(end: int) -> int:
        def reaches(index: int) -> bool:
            return _decode(tokenizer, token_ids[: index + 1])[:end] == text[:end]

        return bisect_left(range(len(token_ids)), True, key=reaches)

    return tuple(first_to_reach(end) for end in char_ends)


def _decode(tokenizer: PreTrainedTokenizerBase, token_ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(token_ids), skip_special_tokens=True))
