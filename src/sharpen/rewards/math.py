"""Mathematical equality, by math-verify."""

from __future__ import annotations

import atexit
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field

from sharpen.rewards.extraction import after_marker, boxed, extract, given, normalise
from sharpen.rewards.verifier import Verifier, reference_text, text_of
from sharpen.rewards.worker import Worker
from sharpen.types import Row

# One for the process, started when first needed. math-verify's own time-out is a signal, which works in the
# main thread only and does not stop a computation inside C code.
_worker = Worker(Path(__file__).with_name("math_worker.py"))
atexit.register(_worker.close)


class Math(Verifier):
    """1 if the completion's answer is mathematically equal to the expected one, else 0.

    ``answer_from`` says where the completion's answer stands, see `sharpen.rewards.extraction.extract`.
    ``column`` holds the expected answer, bare or as a solution that ends in ``\\boxed{…}`` or, as GSM8K's
    do, after ``####``.

    Equal is what evaluates to the same: ``2+3`` and ``x=5`` count as ``5``. Where the problem itself is
    such an expression, repeating it would be right; use ``exact_answer`` there. A comparison that takes
    longer than ``timeout_s`` raises TimeoutError, which is recorded with the sample.

    ``answer`` gives the text for majority voting: ``1/2`` and ``0.5`` count as two answers there.
    """

    name: ClassVar[str] = "math"
    has_answer: ClassVar[bool] = True

    column: str = "answer"
    answer_from: Literal["boxed", "marker", "tags", "last_number", "whole"] = "boxed"
    marker: str = Field("####", min_length=1)
    tag: str = Field("answer", min_length=1)
    timeout_s: float = Field(5.0, gt=0)

    @property
    def columns(self) -> tuple[str, ...]:
        return (self.column,)

    def answer(self, completion: str) -> str | None:
        found = extract(completion, self.answer_from, self.marker, self.tag)
        return None if found is None else normalise(found, case_sensitive=True) or None

    def reference(self, row: Row) -> str | None:
        text = text_of(row, self.column)
        if text is None:
            return None
        return given(boxed(text) or after_marker(text, self.marker) or text, self.answer_from, self.marker, self.tag)

    def __call__(self, completion: str, **row: Any) -> float:
        expected = reference_text(row, self.column)
        expected = boxed(expected) or after_marker(expected, self.marker) or expected
        found = self.answer(completion)
        return 0.0 if found is None else float(equal(expected, found, self.timeout_s))


def equal(expected: str, answer: str, timeout_s: float = 5.0) -> bool:
    """Whether two answers, in LaTeX or plain text, are mathematically equal; usable from any thread.

    Raises TimeoutError after ``timeout_s`` and ValueError if ``expected`` is empty or no mathematics.
    """
    expected, answer = (normalise(text, case_sensitive=True).replace("$", "") for text in (expected, answer))
    if not expected:
        raise ValueError("the expected answer is empty")
    return expected == answer or _compare(expected, answer, timeout_s)


# The completions of a group often give the same answer.
@lru_cache(maxsize=10_000)
def _compare(expected: str, answer: str, timeout_s: float) -> bool:
    question = {"expected": expected, "answer": answer, "timeout_s": timeout_s}
    reply = _worker.ask(question, timeout_s)
    if "unreadable" in reply:
        raise ValueError(f"the expected answer {expected!r} is no mathematics")
    return bool(reply["equal"])
