"""Trajectories of one or several turns, from the requests that draw them.

What the policy wrote is carried as token ids. Where the next context begins with all tokens so far, the sample goes on
with what it adds; where not, or where it adds nothing, the sample ends there and another begins.
"""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from sharpen.rollout.engine import FinishedRequest, Request, Sampling
from sharpen.types import NOT_DRAWN, End, Finish, Message, Prompt, Sample, Score, Trajectory


@dataclass(frozen=True, slots=True)
class Reply:
    """What the policy reads next: the whole context as token ids, and the messages said since its last answer.

    The context differs from the one so far, and its ids are tokens of the model. Messages are JSON, and their ``role``
    and ``content`` are texts.
    """

    token_ids: tuple[int, ...]
    messages: tuple[Message, ...] = ()


class Turns(Protocol):
    """What answers the policy between its turns."""

    def __call__(self, prompt: Prompt, trajectory: Trajectory) -> Reply | End | Awaitable[Reply | End]:
        """A reply to the trajectory so far, or how it has ended. It must depend on these two alone.

        It ends as `End.DONE` or `End.OUT_OF_TURNS`. An exception, or any other answer, is a failure of the environment,
        recorded with the trajectory, which then has no reward. An ``async def`` function is awaited; an attribute
        ``at_once`` says how many calls may run concurrently.
        """
        ...


@dataclass(frozen=True, slots=True)
class TurnLimits:
    """Limits of a trajectory: the tokens that the policy draws, its turns, and the model's context in tokens."""

    tokens: int
    turns: int = 1
    context: int | None = None


class Conversation:
    """A trajectory that is being drawn."""

    def __init__(self, prompt: Prompt, draw_id: int, limits: TurnLimits) -> None:
        self.prompt = prompt
        self.draw_id = draw_id
        self.end: End | None = None
        self._limits = limits
        self._closed: list[Sample] = []
        self._open = Sample(prompt.token_ids, (), ())
        self._messages: list[Message] = []
        self._turns = self._drawn = 0
        self._failure: Score | None = None

    @property
    def context(self) -> tuple[int, ...]:
        """All that the policy reads before its next turn, or has read and written by the end of the last."""
        return (*self._open.prefix_ids, *self._open.token_ids)

    @property
    def _room(self) -> int:
        """The number of tokens that the policy may still draw."""
        room = self._limits.tokens - self._drawn
        if self._limits.context is not None:
            room = min(room, self._limits.context - len(self.context))
        return room

    def request(self, sampling: Sampling, seed: int) -> Request:
        """The request that draws the policy's next turn."""
        return Request(
            self.context,
            self.draw_id,
            sampling.limited_to(self._room),
            seed,
            offset=self._drawn,
            keep=self._turns + 1 < self._limits.turns,
        )

    def take(self, finished: FinishedRequest) -> None:
        """Append the turn that a request drew."""
        n, old = len(finished.token_ids), self._open
        self._open = Sample(
            old.prefix_ids,
            old.token_ids + finished.token_ids,
            old.loss_mask + (True,) * n,
            finished.finish,
            old.logprobs + finished.logprobs,
            old.versions + (finished.version,) * n,
        )
        self._messages.append({"role": "assistant", "content": finished.text})
        self._turns += 1
        self._drawn += n
        if finished.finish is Finish.LENGTH:
            self.end = End.OUT_OF_TOKENS

    def go_on(self, answer: Reply | End) -> None:
        """Append the reply, if there is one and the limits allow another turn."""
        if isinstance(answer, End):
            self.end = answer
        elif self._turns == self._limits.turns:
            self.end = End.OUT_OF_TURNS
        else:
            self._continue(answer)
            if self._room < 1:
                self.end = End.OUT_OF_TOKENS

    def fail(self, error: str, *, timed_out: bool = False) -> None:
        """End the trajectory without a reward: what should have answered failed."""
        self.end = End.ENVIRONMENT_FAILED
        self._failure = Score(None, error=f"the environment failed: {error}", timed_out=timed_out)

    def _continue(self, reply: Reply) -> None:
        so_far = self.context
        self._messages += reply.messages
        # A reply that adds nothing begins a sample too: two turns without a token between them would be read as one.
        if reply.token_ids[: len(so_far)] != so_far or len(reply.token_ids) == len(so_far):
            self._closed.append(self._open)
            self._open = Sample(reply.token_ids, (), ())
            return
        old, added = self._open, reply.token_ids[len(so_far) :]
        self._open = Sample(
            old.prefix_ids,
            old.token_ids + added,
            old.loss_mask + (False,) * len(added),
            old.finish,
            old.logprobs + (0.0,) * len(added),
            old.versions + (NOT_DRAWN,) * len(added),
        )

    def trajectory(self) -> Trajectory:
        """The trajectory so far."""
        # A context in which the policy had no room to write is no sample.
        samples = (*self._closed, self._open) if self._open.token_ids or not self._closed else tuple(self._closed)
        return Trajectory(samples, tuple(self._messages), self.end or End.DONE, self.draw_id, self._failure)
