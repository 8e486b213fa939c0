"""The text of each token of a completion."""

from __future__ import annotations

import re
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

REMEMBERED = 200_000
"""Decoded texts that are kept: a run writes the same few tokens after each other again and again."""
SHORT = 8
"""Tokens whose text is kept."""
UNRESOLVED = 64
"""Tokens that may wait for the bytes that make them characters."""
BROKEN = "�"
"""What bytes decode to that are not yet a whole character."""
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


class TokenTexts:
    """Splits the text of a run of tokens into one piece for each; together the pieces are the text.

    Special tokens are shown. A character whose bytes are several tokens belongs to the last of them, and the pieces of
    the others are empty.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._known: dict[tuple[int, ...], str] = {}
        self._bytes: dict[int, bool] = {}

    def of(self, ids: Sequence[int]) -> list[str]:
        pieces: list[str] = []
        # What a token adds may depend on the one before it, as a space does. So the text that tokens add is that of a
        # short window with them, less that of the window without them.
        begin, end = 0, 0
        for position in range(len(ids)):
            if self._goes_on(ids, begin, end, position):
                continue
            before, after = self._decoded(ids[begin:end]), self._decoded(ids[begin : position + 1])
            pieces += self._split(after[len(before) :], ids[end : position + 1])
            begin, end = end, position + 1
        return pieces

    def _goes_on(self, ids: Sequence[int], begin: int, end: int, position: int) -> bool:
        """Whether the text of the tokens from ``end`` to ``position`` may change with those that follow."""
        if position + 1 == len(ids):
            return False
        if self._is_byte(ids[position]):
            # All bytes in a row are decoded together: one that fits no character breaks those before it, too.
            return self._is_byte(ids[position + 1])
        after = self._decoded(ids[begin : position + 1])
        if not after.endswith(BROKEN):
            return False
        # After three more bytes a character is whole, or never will be.
        return position - end < UNRESOLVED or not self._decoded(ids[begin : position + 4]).startswith(after)

    def _split(self, text: str, ids: Sequence[int]) -> list[str]:
        """The text that these tokens add together, for each."""
        pieces = [""] * len(ids)
        if not self._is_byte(ids[-1]):
            return [*pieces[:-1], text]
        # Counted from the end, for a blank at the beginning may have been left out.
        last = len(ids) - 1
        for character in reversed(text):
            pieces[last] = character + pieces[last]
            last = max(0, last - (1 if character == BROKEN else len(character.encode())))
        return pieces

    def _is_byte(self, token: int) -> bool:
        """Whether it is one of SentencePiece's bytes, such as ``<0x0A>``, of which characters without a token are
        made."""
        if token not in self._bytes:
            name = str(self._tokenizer.convert_ids_to_tokens(token))
            self._bytes[token] = bool(_BYTE.fullmatch(name)) and self._decoded([token]) != name
        return self._bytes[token]

    def _decoded(self, ids: Sequence[int]) -> str:
        key = tuple(ids)
        text = self._known.get(key)
        if text is None:
            text = str(self._tokenizer.decode(list(key), skip_special_tokens=False, clean_up_tokenization_spaces=False))
            if len(key) <= SHORT:
                if len(self._known) >= REMEMBERED:
                    self._known.clear()
                self._known[key] = text
        return text
