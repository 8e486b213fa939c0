"""A reward by a regular expression, matched in worker processes so that it can time out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import field_validator

from sharpen.rewards.verifier import Verifier
from sharpen.settings import Seconds
from sharpen.system.workers import Exhausted, WorkerPool
from sharpen.types import Refused

# One pool per process, started on first use. re holds the GIL while it matches, so neither a thread nor a signal of
# this process could interrupt it.
_workers = WorkerPool(Path(__file__).with_name("regex_worker.py"))


class Regex(Verifier):
    """``value`` if the pattern matches the completion, else 0.

    With ``mode`` "fullmatch" the pattern must match the whole stripped completion, with "search" any part of it. Flags
    go into the pattern, as in ``(?is)``.

    Patterns run in worker processes: Python's ``re`` takes quadratic time to search a long line for ``.*;.*``, and
    exponential time with nested repetitions such as ``(a+)+b``. A match that takes longer than ``timeout_s`` is
    `Refused`: 0, with the reason recorded.
    """

    name: ClassVar[str] = "regex"
    at_once: ClassVar[int] = _workers.size

    pattern: str
    """The regular expression, in Python's syntax; flags go into it, as in `(?is)`."""
    mode: Literal["fullmatch", "search"] = "fullmatch"
    """Whether the pattern must match the whole stripped completion, or any part of it."""
    value: float = 1.0
    """The reward where the pattern matches."""
    timeout_s: Seconds = 5.0
    """Time limit of one match in seconds of processor time; the completion then has the reward 0."""

    @field_validator("pattern")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        try:
            re.compile(pattern)
        except re.error as error:
            raise ValueError(f"invalid regular expression: {error}") from error
        return pattern

    def __call__(self, completion: str, **row: Any) -> float:
        text = completion.strip() if self.mode == "fullmatch" else completion
        question = {"mode": self.mode, "pattern": self.pattern, "text": text}
        try:
            matches = _workers.judge(question, self.timeout_s)["matches"]
        except Exhausted as error:
            return Refused(str(error), timed_out=error.timed_out)
        return self.value if matches else 0.0
