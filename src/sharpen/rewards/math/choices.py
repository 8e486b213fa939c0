"""Answers to multiple-choice questions."""

from __future__ import annotations

import re

_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_LABEL = re.compile(r"\(\s*[A-J]\s*\)|\b[A-J]\s*[).:]")
_ANOTHER = re.compile(r"\s*[,;&/|]|.*\d\s*,\s*\(?\s*[A-J]\s*\)?$|.*\d\s+[A-J]\s+\S", re.DOTALL)
"""What follows a label and offers a second one."""
_LABELLED = re.compile(r"(?:\(\s*([A-J])\s*\)|([A-J])\s*[).:])\s*(\S.*)", re.DOTALL)
_MOST_CHOSEN = 6


def choice(text: str) -> str | None:
    """The letter of a multiple-choice answer: ``B``, ``(B)``, ``B)`` or ``\\text{B}``."""
    found = re.fullmatch(r"\(?\s*([A-Z])\s*\)?\.?", _TEXT.sub(r"\1", text).strip())
    return found[1] if found else None


def several_choices(text: str) -> frozenset[str] | None:
    """The letters where several choices are right: ``A, C``, ``A and C``, ``\\text{A,C}`` or ``AC``; else None.

    Without separators they are distinct, in order, and none beyond J, so that few products are taken for choices.
    """
    bare = _TEXT.sub(r"\1", text).strip()
    if re.fullmatch(rf"[A-J]{{2,{_MOST_CHOSEN}}}", bare):
        return frozenset(bare) if list(bare) == sorted(set(bare)) else None
    parts = re.split(r"\s*(?:,\s*(?:and|or)\b|,|;|\band\b|\bor\b|&)\s*", bare)
    letters = [choice(part) for part in parts]
    return None if len(letters) < 2 or None in letters else frozenset(letter for letter in letters if letter)


def labelled(text: str) -> tuple[str, str] | None:
    """The letter and the content of a choice that is given with both, as in ``\\textbf{(C)}\\ 12``; else None.

    Two labels are two answers, not one.
    """
    bare = _TEXT.sub(r"\1", text, count=1).strip()
    found = _LABELLED.fullmatch(bare)
    if found is None or len(_LABEL.findall(bare)) > 1:
        return None
    content = found[3].strip()
    return None if choice(content) or _ANOTHER.match(content) else (found[1] or found[2], content)
