"""Where the steps of a completion end: in characters, and in tokens."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Sequence
from itertools import pairwise

from transformers import PreTrainedTokenizerBase

from sharpen.data.tokens import hidden_ids, visible_text


def step_ends(text: str, separator: str) -> tuple[int, ...]:
    """The character offsets at which the steps of ``text`` end: each after its separator, the last with the text.

    Whitespace between two separators is not a step; whitespace after the last separator belongs to the last step. A
    text without a separator is one step.
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
    token_ids: Sequence[int],
    char_ends: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    hidden: Collection[int] | None = None,
) -> tuple[int, ...]:
    """For each character offset of the `visible_text` of the tokens the index of the token that completes it.

    It is the first token for which the text of the tokens up to it begins with the text up to the offset. A character
    of several tokens (bytes) is complete with its last token, except U+FFFD, to which all incomplete characters decode.
    Tokens in ``hidden``, by default the tokenizer's end of sequence and padding, are not text. Offsets are in ascending
    order.

    Raises ValueError for an offset that is outside the text or not above the one before.
    """
    hidden = hidden_ids(tokenizer) if hidden is None else hidden
    text = visible_text(tokenizer, token_ids, hidden)
    if any(later <= earlier for earlier, later in pairwise((0, *char_ends))) or (
        char_ends and char_ends[-1] > len(text)
    ):
        raise ValueError(
            f"ends {list(char_ends)} of a text of {len(text)} characters: each must be above the one before"
        )

    prefixes = _Prefixes(token_ids, text, tokenizer, hidden)
    return tuple(prefixes.first_to_reach(end) for end in char_ends)


class _Prefixes:
    """How many characters the first tokens of a text decode to, in linear time: only a window is decoded each time.

    The tokens before ``_base`` are the first ``_before`` characters. Later tokens are decoded together with those from
    ``_context`` on, because some tokenizers drop a leading space, and the first ``_known`` characters of the result are
    dropped.
    """

    WINDOW = 32
    """Tokens beyond `_base` that are decoded at first."""
    LONGEST_CHARACTER = 4
    """Tokens that one character may be made of, its bytes."""

    def __init__(
        self, token_ids: Sequence[int], text: str, tokenizer: PreTrainedTokenizerBase, hidden: Collection[int]
    ) -> None:
        self._ids, self._text, self._tokenizer, self._hidden = token_ids, text, tokenizer, hidden
        self._begin()

    def _begin(self) -> None:
        self._context = self._base = self._known = self._before = 0

    def first_to_reach(self, end: int) -> int:
        """The first token whose prefix begins with the text up to ``end``, which is never less than the last time."""
        count = len(self._ids)
        stop = min(self._base + self.WINDOW, count)
        while not self._reaches(stop, end) and stop < count:
            self._move(stop)
            stop = min(max(self._base, stop) + self.WINDOW, count)
        if not self._reaches(stop, end):
            # Only for a tokenizer that decodes a token by what stands far before it.
            self._begin()
        return (
            bisect_left(range(self._base + 1, stop + 1), True, key=lambda stop: self._reaches(stop, end)) + self._base
        )

    def _reaches(self, stop: int, end: int) -> bool:
        return self._decoded(stop)[: end - self._before] == self._text[self._before : end]

    def _decoded(self, stop: int) -> str:
        """The text of the tokens from ``_base`` up to ``stop``."""
        return self._read(self._context, stop)[self._known :]

    def _read(self, start: int, stop: int) -> str:
        return visible_text(self._tokenizer, self._ids[start:stop], self._hidden)

    def _move(self, stop: int) -> None:
        """Makes ``stop``, or a position shortly before it, the new base, at which no character is split."""
        for base in range(stop, max(stop - self.LONGEST_CHARACTER, self._base), -1):
            piece = self._decoded(base)
            again = self._read(self._base, base)
            before = self._before + len(piece)
            if again and self._text.startswith(piece, self._before) and self._text.endswith(again, 0, before):
                self._context, self._base, self._known, self._before = self._base, base, len(again), before
                return
