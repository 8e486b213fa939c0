"""A reward by a regular expression of the user's, which runs where it can be ended."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from sharpen.rewards.verifier import Verifier
from sharpen.system.workers import WorkerPool

# For the whole process, started when first needed. A pattern holds the interpreter's lock until it is done, so that
# within this process neither another thread nor a signal could end it.
_workers = WorkerPool(Path(__file__).with_name("regex_worker.py"))


class Regex(Verifier):
    """``value`` if the pattern matches the completion, else 0.

    ``mode`` "fullmatch" asks for the whole completion, without white space at its ends; "search" for any
    part of it. Flags are written into the pattern, as in ``(?is)``.

    Patterns run in worker processes: Python's ``re`` takes quadratic time for a search of ``.*;.*`` in a long line, and
    exponential time with nested repetitions such as ``(a+)+b``. One that takes longer than ``timeout_s`` raises
    TimeoutError, which is recorded with the sample.
    """

    name: ClassVar[str] = "regex"
    at_once: ClassVar[int] = _workers.size

    pattern: str
    mode: Literal["fullmatch", "search"] = "fullmatch"
    value: float = Field(1.0, allow_inf_nan=False)
    timeout_s: float = Field(5.0, gt=0)

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from error
        return pattern

    def __call__(self, completion: str, **row: Any) -> float:
        text = completion.strip() if self.mode == "fullmatch" else completion
        question = {"mode": self.mode, "pattern": self.pattern, "text": text, "timeout_s": self.timeout_s}
        return self.value if _workers.ask(question, self.timeout_s)["matches"] else 0.0
