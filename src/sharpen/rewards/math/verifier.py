"""Mathematical equality, by math-verify."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from sharpen.rewards.math.chinese import last_answer
from sharpen.rewards.math.forms import same
from sharpen.rewards.math.text import clean, nesting
from sharpen.rewards.text.extraction import after_marker, boxed, extract, given, is_solution, normalise
from sharpen.rewards.verifier import Verifier, reference_text, text_of
from sharpen.settings import Effect, Name, Seconds
from sharpen.system.workers import Exhausted, WorkerPool
from sharpen.types import Refused, Row

MOST_CHARACTERS = 1000
MOST_NESTED = 30
"""Longer answers, and deeper nested brackets, only equal the same text."""
LONGEST_PAIR = 4000
"""A longer answer, expected or given, only equals the same text: Python reads no number of more than 4,300 digits."""

_ANSWER_IS = re.compile(r"(?i:\banswer(?: is(?: therefore| thus)?)?\s*:|\banswer is(?: therefore| thus)?)\s*(\S[^\n]*)")

_FEW_WORDS = re.compile(r"\(?[A-Za-z]\)?\.?|[^\W\d_]+( [^\W\d_]+)?\.?")

# One pool per process, started on first use. math-verify's own timeout uses a signal, which only works in the main
# thread and does not interrupt C code.
_workers = WorkerPool(Path(__file__).with_name("worker.py"))


class Math(Verifier):
    """1 if the completion's answer is mathematically equal to the expected one, else 0.

    ``answer_from`` says where the completion's answer is, see `sharpen.rewards.text.extraction.extract`.
    ``column`` holds the expected answer, bare or as a solution that ends in ``\\boxed{…}`` or, as in GSM8K, after
    ``####``.

    Answers are equal if they evaluate to the same value: ``2+3`` and ``x=5`` equal ``5``. If the problem itself is such
    an expression, repeating it would be right; use ``exact_answer`` instead. Decimals are exact, so ``0.333`` is not
    ``1/3``; ``50\\%`` is ``0.5`` and not ``50``; a unit may be omitted, but not differ; order and brackets matter in
    tuples and intervals, but not in sets and lists. What cannot be parsed as mathematics is compared as text.
    docs/rewards.md lists known misses. An answer whose comparison takes longer than ``timeout_s``, or too much
    memory, is `Refused`: 0, with the reason recorded.

    ``answer`` is the text for majority voting: ``1/2`` and ``0.5`` are two answers there.
    """

    name: ClassVar[str] = "math"
    has_answer: ClassVar[bool] = True
    at_once: ClassVar[int] = _workers.size
    # Digits of another script and invisible characters change no number.
    allowed_cheats: ClassVar[tuple[str, ...]] = ("look_alikes",)

    column: Name = "answer"
    """The column with the expected answer, bare or as a solution that ends with it."""
    answer_from: Literal["boxed", "marker", "tags", "last_number", "whole"] = "boxed"
    """Where the completion's answer is: in the last \\boxed{…}, in the rest of the line after the last `marker`,
    between tags, the last number, or the whole text."""
    marker: str = Field("####", min_length=1)
    """What stands before the answer, in expected answers too."""
    tag: Name = "answer"
    """The name of the tags around the answer."""
    timeout_s: Seconds = 5.0
    """Time limit of one comparison in seconds of processor time; the completion then has the reward 0."""

    effects = (Effect("tag", "with answer_from tags", lambda s: s.answer_from == "tags"),)

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def answer(self, completion: str) -> str | None:
        found = extract(completion, self.answer_from, self.marker, self.tag)
        return None if found is None else normalise(found, case_sensitive=True) or None

    def reference(self, row: Row) -> str | None:
        text = text_of(row, self.column)
        return None if text is None else given(self._bare(text), self.answer_from, self.marker, self.tag)

    def doubt(self, row: Row, prompt: str) -> str | None:
        text = text_of(row, self.column)
        if text is None or not is_solution(self._bare(text)):
            return None
        return (
            f"column `{self.column}` has a solution without \\boxed{{…}}, {self.marker} or 答案, which no answer equals"
        )

    def check_row(self, row: Row) -> None:
        reference_text(row, self.column)

    def __call__(self, completion: str, **row: Any) -> float:
        expected = self._bare(reference_text(row, self.column))
        found = extract(completion, self.answer_from, self.marker, self.tag)
        if found is None:
            return 0.0
        try:
            return float(equal(expected, found, self.timeout_s))
        except Exhausted as error:
            return Refused(str(error), timed_out=error.timed_out)

    def _bare(self, expected: str) -> str:
        found = boxed(expected) or after_marker(expected, self.marker) or _said(expected)
        return (found or expected).strip()


def _said(solution: str) -> str | None:
    """What follows the last "answer is", "Answer:" or 答案 of a solution, unless that is a sentence itself."""
    found = _ANSWER_IS.findall(solution)
    said = last_answer(solution) or (found[-1] if found else "")
    first = re.split(r"(?<=[^\W\d])\. |(?<=[\d)}$])\.\s+(?=[A-Z])", said)[0].strip()
    if not first or first.startswith("not "):
        return None
    return first if re.search(r"[\d\\$]", first) or _FEW_WORDS.fullmatch(first) else None


def equal(expected: str, answer: str, timeout_s: float = 5.0) -> bool:
    """Whether two answers, in LaTeX or plain text, are mathematically equal; thread-safe.

    An answer beyond `MOST_CHARACTERS` (or twice the expected answer's length) or `MOST_NESTED` is not parsed. Raises
    `Exhausted` if that takes more than ``timeout_s`` of processor time or too much memory, and ValueError if
    ``expected`` is empty.
    """
    if not expected.strip():
        raise ValueError("the expected answer is empty")
    if expected.strip() == answer.strip():
        return True
    if max(len(expected), len(answer)) > LONGEST_PAIR:
        return False
    if len(answer) > max(MOST_CHARACTERS, 2 * len(expected)) or nesting(answer) > max(MOST_NESTED, nesting(expected)):
        return False
    expected, answer = clean(expected), clean(answer)
    left_s = timeout_s

    def compare(one: str, other: str) -> bool:
        nonlocal left_s
        if left_s <= 0:
            raise Exhausted(f"no answer within {timeout_s:g} s", timed_out=True)
        found, cpu_s = _compare(one, other, timeout_s)
        left_s -= cpu_s
        if isinstance(found, Exhausted):
            # A new one each time: what is cached would gather the frames of all that it was raised in.
            raise Exhausted(str(found), timed_out=found.timed_out)
        return found

    return bool(answer) and same(expected, answer, compare)


# Completions of a group often have the same answer.
@lru_cache(maxsize=10_000)
def _compare(expected: str, answer: str, timeout_s: float) -> tuple[bool | Exhausted, float]:
    """Whether the two are equal, or why that is not known, and the processor time that it took in seconds."""
    try:
        reply = _workers.judge({"expected": expected, "answer": answer}, timeout_s)
    except Exhausted as error:
        return error, timeout_s
    return bool(reply["equal"]), reply["cpu_s"]
