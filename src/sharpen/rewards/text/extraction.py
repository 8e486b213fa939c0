"""Extraction of the answer from a text, and the normal form in which answers are compared."""

from __future__ import annotations

import re
from typing import Literal

Source = Literal["whole", "marker", "tags", "boxed", "last_number"]

_WORD = re.compile(r"(?<![\\a-zA-Z])[^\W\d_]{2,}")
_ENVIRONMENT = re.compile(r"\\begin\{(\w+\*?)\}.*?\\end\{\1\}", re.DOTALL)
_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?:\s*(\{)|\s+(?=[^\s{])|(?=[\d\\]))")
_UNBRACED = re.compile(r"[^\s$]+")
_NUMBER = re.compile(r"[+-]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.[0-9]*)?")
# A fraction is one token: extracting the 2 from 1/2 could make a wrong answer right. A hyphen after a word or a
# bracket is a minus between two terms, not a sign.
_NUMBER_IN_TEXT = re.compile(
    r"(?:(?<![\w)\]}.])[-+])?"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![\w.])\.[0-9]+)"
    r"(?:\s?/\s?[0-9]+(?:\.[0-9]+)?)?"
)


def extract(text: str, source: Source, marker: str = "####", tag: str = "answer") -> str | None:
    """The answer in ``text``, stripped, or None if there is none.

    - ``whole``: the whole text.
    - ``marker``: the rest of the line after the last ``marker``.
    - ``tags``: the content of ``<tag>…</tag>``; None if there is more than one opening or closing tag.
    - ``boxed``: the content of the last ``\\boxed{…}``.
    - ``last_number``: the last number, with its sign, thousands separators and denominator (``1/2``).
    """
    if source == "whole":
        found: str | None = text
    elif source == "marker":
        found = after_marker(text, marker)
    elif source == "tags":
        found = in_tags(text, tag)
    elif source == "boxed":
        found = boxed(text)
    else:
        found = last_number(text)
    return (found or "").strip() or None


def given(answer: str, source: Source, marker: str = "####", tag: str = "answer") -> str:
    """The shortest text from which `extract` reads ``answer``."""
    forms = {"marker": f"{marker} {answer}", "tags": f"<{tag}>{answer}</{tag}>", "boxed": f"\\boxed{{{answer}}}"}
    return forms.get(source, answer)


def after_marker(text: str, marker: str) -> str | None:
    """The rest of the line after the last ``marker``."""
    _, found, rest = text.rpartition(marker)
    return rest.partition("\n")[0] if found else None


def in_tags(text: str, tag: str) -> str | None:
    """The content of ``<tag>…</tag>``, if both tags occur exactly once and in this order."""
    opening, closing = f"<{tag}>", f"</{tag}>"
    if text.count(opening) != 1 or text.count(closing) != 1:
        return None
    before, _, _ = text.partition(closing)
    return before.partition(opening)[2] if opening in before else None


def boxed(text: str) -> str | None:
    """The content of the last box: ``\\boxed{…}`` with balanced braces, ``\\boxed {…}``, ``\\fbox{…}``, or
    ``\\boxed 5``, whose content ends before a blank, a ``$`` or a full stop."""
    boxes = list(_BOX.finditer(text))
    if not boxes:
        return None
    found = boxes[-1]
    start = found.end()
    if found[1] is None:
        bare = _UNBRACED.match(text, start)
        return bare[0].rstrip(".,;:") or None if bare else None
    depth, position = 1, start
    while position < len(text):
        if text[position] == "\\":
            position += 2
            continue
        depth += {"{": 1, "}": -1}.get(text[position], 0)
        if depth == 0:
            return text[start:position]
        position += 1
    return None


def last_number(text: str) -> str | None:
    """The last number of the text; see `extract`."""
    found = None
    for match in _NUMBER_IN_TEXT.finditer(text.replace("\u2212", "-")):
        found = match.group()
    return found


def is_solution(text: str) -> bool:
    """Whether this is a worked solution rather than an answer: several lines, or a sentence of ten words or more.

    The lines of a matrix are one, and commands of LaTeX are no words.
    """
    return "\n" in _ENVIRONMENT.sub("", text).strip() or len(_WORD.findall(text)) >= 10


def normalise(text: str, case_sensitive: bool = False) -> str:
    """The normal form in which answers are compared.

    White space is stripped and collapsed; a final full stop and surrounding ``$`` signs are removed. Numbers lose their
    thousands separators, plus sign, leading zeros and trailing decimal zeros: ``+1,234.50`` equals ``1234.5``. Nothing
    is evaluated: ``48/6`` is not ``8``. Case is ignored unless ``case_sensitive``.
    """
    text = " ".join(text.replace("\u2212", "-").split())
    text = text.strip("$").strip()
    if text.endswith("."):
        text = text[:-1].rstrip()
    if any(c in "0123456789" for c in text) and _NUMBER.fullmatch(text):
        return _plain_number(text)
    return text if case_sensitive else text.casefold()


def _plain_number(text: str) -> str:
    # Edited as text: a float or Decimal would round a long number and make a wrong answer right.
    sign = "-" if text.startswith("-") else ""
    whole, _, fraction = text.lstrip("+-").replace(",", "").partition(".")
    whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
    digits = f"{whole}.{fraction}" if fraction else whole
    return digits if digits == "0" else sign + digits
