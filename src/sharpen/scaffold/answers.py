"""What kind of answers a column holds."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sharpen.rewards.text.extraction import after_marker, boxed

Form = Literal["mathematics", "short text", "long text"]

LONGEST_SHORT = 60
"""Characters of an answer that a completion may be compared with as a whole."""

_NUMBER = re.compile(r"\$?[-+−]?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)(?:\s*/\s*\d+)?(?:e[-+]?\d+)?\s*%?\$?", re.IGNORECASE)
_LATEX = re.compile(r"\\(?:d?frac|sqrt|pi|text|left|cdot|times|circ|infty|pm|cup|leq?|geq?)\b|\^\{?\d|^\$.+\$$")
_FORMULA = re.compile(r"[-+*/^=().,\s\d\[\]{}|<>]*(?:(?<![A-Za-z])[A-Za-z](?![A-Za-z])[-+*/^=().,\s\d\[\]{}|<>]*)*")


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of a column: their form, and whether each is a bare number or stands in a worked solution.

    ``choices`` are the different ones, if there are few of them.
    """

    column: str
    form: Form
    numbers: bool = False
    worked: bool = False
    choices: tuple[str, ...] = ()


def look_at_answers(column: str, values: Sequence[Any]) -> Answers | None:
    """None if these are no answers: lists, objects, or nothing in most rows."""
    if not values or any(isinstance(value, (list, tuple, dict)) for value in values):
        return None
    texts = [str(value).strip() for value in values if value is not None]
    if len(texts) < len(values) or not all(texts):
        return None
    final = [_final(text) for text in texts]
    if all(text is not None for text in final):
        bare = [text for text in final if text is not None]
        return Answers(column, "mathematics", all(_NUMBER.fullmatch(text) for text in bare), worked=True)
    if all(_is_mathematics(text) for text in texts):
        return Answers(column, "mathematics", all(_NUMBER.fullmatch(text) for text in texts))
    if all(len(text) <= LONGEST_SHORT and "\n" not in text for text in texts):
        choices = tuple(dict.fromkeys(texts))
        few = len(choices) <= 10 and 2 * len(choices) <= len(texts)
        mathematical = sum(map(_is_mathematics, texts)) >= 0.8 * len(texts) and not few
        return Answers(column, "mathematics" if mathematical else "short text", choices=choices if few else ())
    return Answers(column, "long text")


def _final(text: str) -> str | None:
    """The final answer that a worked solution marks."""
    return (boxed(text) or after_marker(text, "####") or "").strip() or None


def _is_mathematics(text: str) -> bool:
    if len(text) > 200:
        return False
    digits = any(character.isdigit() for character in text)
    return bool(_NUMBER.fullmatch(text) or _LATEX.search(text) or (digits and _FORMULA.fullmatch(text)))
