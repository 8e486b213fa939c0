"""A row of the data as the check sees it: what is asked, what is right, what is wrong."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sharpen.rewards.text.extraction import normalise
from sharpen.types import Prompt

_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """How a completion holds an answer: ``\\boxed{…}``, say. The answer stands between ``before`` and ``after``."""

    before: str
    after: str = ""

    def __str__(self) -> str:
        return f"{self.before}…{self.after}"

    def around(self, answer: str) -> str:
        return f"{self.before}{answer}{self.after}"


PLAIN = AnswerForm("")

FORMS = (
    PLAIN,
    AnswerForm("\\boxed{", "}"),
    AnswerForm("#### "),
    AnswerForm("#"),
    AnswerForm("<answer>", "</answer>"),
    AnswerForm("<think>\nLet me think about it.\n</think>\n<answer>\n", "\n</answer>"),
    AnswerForm("The answer is ", "."),
    AnswerForm("```\n", "\n```"),
)
"""The usual ones, tried where the reward does not say in which form it reads answers."""


@dataclass(frozen=True, slots=True)
class Case:
    """``where`` is how messages call the row and ``question`` what the user asks, without a chat template.

    ``reference`` is a completion that is right and ``answer`` the bare answer in it, each None where it is not known.
    ``form`` is a form in which the reward reads a bare answer, None where it reads none. ``others`` are the
    references of rows with another answer, ``wrong`` bare answers that are not this row's.
    """

    where: str
    prompt: Prompt
    question: str
    reference: str | None = None
    answer: str | None = None
    form: AnswerForm | None = None
    others: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()

    def told(self, text: str) -> dict[str, tuple[str, ...]]:
        """A text as the whole completion and, where there is one, in the form in which answers are read."""
        if self.form is None or self.form == PLAIN:
            return {"plain": (text,)}
        return {"plain": (text,), f"as {str(self.form)!r}": (self.form.around(text),)}

    def told_in_every_order(self, texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """The same of texts that differ in the order of what they say, and must all be accepted."""
        each = [self.told(text) for text in texts]
        return {label: tuple(told[label][0] for told in each) for label in each[0]} if each else {}


def off_by_one(text: str, by: int = 1) -> str | None:
    """The text with its last whole number changed by so much; None if there is none, or it would be below zero."""
    found = list(_DIGITS.finditer(text))
    if not found:
        return None
    last = found[-1]
    number = int(last.group()) + by
    if number < 0:
        return None
    return f"{text[: last.start()]}{number:0{len(last.group())}d}{text[last.end() :]}"


def wrong_answers(answer: str, others: Sequence[str], at_most: int = 20) -> tuple[str, ...]:
    """Bare answers that are not ``answer``: its neighbours where it is a number, then those of other rows."""
    near = [off_by_one(answer, by) for by in (1, -1, 2, 3)] if _DIGITS.search(answer) else []
    found: dict[str, str] = {}
    for other in [*near, *others]:
        if other is not None and normalise(other) != normalise(answer):
            found.setdefault(normalise(other), other)
        if len(found) == at_most:
            break
    return tuple(found.values())
