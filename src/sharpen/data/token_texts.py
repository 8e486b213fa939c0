"""The text of each token of a completion."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

REMEMBERED = 200_000
"""Decoded texts that are kept: a run writes the same few tokens after each other again and again."""
BROKEN = "�"
"""What bytes decode to that are not yet a whole character."""


class TokenTexts:
    """Splits the text of a run of tokens into one piece for each; together the pieces are the text.

    Special tokens are shown. A character whose bytes are several tokens belongs to the last of them, and the pieces of
    the others are empty.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._known: dict[tuple[int, ...], str] = {}

    def of(self, ids: Sequence[int]) -> list[str]:
        pieces: list[str] = []
        # What a token adds may depend on the one before it, as a space does. So the text that a token adds is that of
        # a short window with it, less that of the window without it.
        begin, end = 0, 0
        for position in range(len(ids)):
            before, after = self._decoded(ids[begin:end]), self._decoded(ids[begin : position + 1])
            if after.endswith(BROKEN) and position + 1 < len(ids):
                pieces.append("")
                continue
            pieces.append(after[len(before) :])
            begin, end = end, position + 1
        return pieces

    def _decoded(self, ids: Sequence[int]) -> str:
        key = tuple(ids)
        text = self._known.get(key)
        if text is None:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            decoded = self._tokenizer.decode(list(key), skip_special_tokens=False, clean_up_tokenization_spaces=False)
            text = self._known[key] = str(decoded)
        return text
