"""A row of the data for the check: the question, right answers and wrong answers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from sharpen.rewards.text.extraction import normalise
from sharpen.types import Prompt

_DIGITS = re.compile(r"\d+")


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """The form of an answer in a completion, such as ``\\boxed{…}``: the text ``before`` and ``after`` it."""

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
"""Common forms, tried if the reward does not tell the form that it parses."""


@dataclass(frozen=True, slots=True)
class Case:
    """A row: ``where`` is its name in messages, ``question`` the user's text without a chat template.

    ``reference`` is a right completion and ``answer`` the bare answer in it; None if not known. ``form`` is a form in
    which the reward parses a bare answer, None if there is none. ``others`` are the references of rows with other
    answers, ``wrong`` are wrong bare answers.
    """

    where: str
    prompt: Prompt
    question: str
    reference: str | None = None
    answer: str | None = None
    form: AnswerForm | None = None
    others: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()

    def variants(self, text: str) -> dict[str, tuple[str, ...]]:
        """A text as the whole completion and, if there is one, in the form that the reward parses."""
        if self.form is None or self.form == PLAIN:
            return {"plain": (text,)}
        return {"plain": (text,), f"as {str(self.form)!r}": (self.form.around(text),)}

    def variants_in_every_order(self, texts: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """`variants` of texts that say the same in different orders, and must all be accepted."""
        each = [self.variants(text) for text in texts]
        return {label: tuple(variants[label][0] for variants in each) for label in each[0]} if each else {}


def off_by_one(text: str, by: int = 1) -> str | None:
    """The text with ``by`` added to its last integer; None if there is none, or if it would be negative."""
    found = list(_DIGITS.finditer(text))
    if not found:
        return None
    last = found[-1]
    number = int(last.group()) + by
    if number < 0:
        return None
    return f"{text[: last.start()]}{number:0{len(last.group())}d}{text[last.end() :]}"


def wrong_answers(answer: str, others: Sequence[str], at_most: int = 20) -> tuple[str, ...]:
    """Wrong bare answers: neighbours of ``answer`` if it has a number, then the answers of other rows."""
    near = [off_by_one(answer, by) for by in (1, -1, 2, 3)] if _DIGITS.search(answer) else []
    found: dict[str, str] = {}
    for other in [*near, *others]:
        if other is not None and normalise(other) != normalise(answer):
            found.setdefault(normalise(other), other)
        if len(found) == at_most:
            break
    return tuple(found.values())
