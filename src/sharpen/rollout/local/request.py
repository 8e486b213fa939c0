"""A request between its arrival and its end."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from sharpen.rollout.engine import Request
from sharpen.types import Finish


@dataclass(frozen=True)
class UnfinishedRequest:
    """``tokens`` and ``logprobs`` are what it had drawn when it was last preempted; ``group`` numbers the call to add.

    Drawing goes on after ``context``. Requests of a group with the same context share it.
    """

    request: Request
    group: int
    tokens: tuple[int, ...] = ()
    logprobs: tuple[float, ...] = ()
    preemptions: int = 0

    @cached_property
    def context(self) -> tuple[int, ...]:
        return self.request.token_ids + self.tokens

    @property
    def room(self) -> int:
        """How many more tokens it may draw."""
        return self.request.max_new_tokens - len(self.tokens)


@dataclass(frozen=True, slots=True)
class EndedRow:
    """A finished row of the running batch, with all tokens of its request."""

    row: int
    unfinished: UnfinishedRequest
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: Finish
