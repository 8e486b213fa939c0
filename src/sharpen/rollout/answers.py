"""Asks what answers the policy for its replies, with a time limit: for many together, or for each as its turn ends."""

from __future__ import annotations

import inspect
import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Lock

from sharpen.errors import RecipeError
from sharpen.rewards.execution.calls import CallResult, Calls
from sharpen.rewards.execution.event_loop import run_coroutine
from sharpen.rewards.execution.settings import CallSettings
from sharpen.rewards.execution.threads import start_thread
from sharpen.rewards.function import ASYNC_AT_ONCE
from sharpen.rollout.checked_answer import AnswerError, checked
from sharpen.rollout.turns import Conversation, Reply, Turns
from sharpen.system.user_code import undisturbed
from sharpen.types import End

SLACK_S = 30.0
"""How long after its time limit a reply is sure to have come or to have been given up."""


def calls_at_once(turns: Turns) -> int:
    """The function's attribute ``at_once``, else `ASYNC_AT_ONCE` for an ``async def`` function and 1 for any other.

    Raises RecipeError if the attribute is not a whole number of 1 or more.
    """
    at_once = getattr(turns, "at_once", ASYNC_AT_ONCE if _is_async(turns) else 1)
    if isinstance(at_once, bool) or not isinstance(at_once, int) or at_once < 1:
        raise RecipeError(f"rollout.turns: the attribute at_once is {at_once!r}, not a whole number of 1 or more")
    return at_once


def _is_async(turns: Turns) -> bool:
    return inspect.iscoroutinefunction(turns) or inspect.iscoroutinefunction(type(turns).__call__)


@dataclass(frozen=True, slots=True)
class Answers:
    """Calls ``turns`` for conversations, up to `calls_at_once` of them concurrently.

    An ``async def`` function is awaited on the event loop of async rewards. An exception, an answer that `checked`
    refuses, and one that takes longer than ``timeout_s`` are recorded with the trajectory. ``vocabulary`` is the number
    of the model's tokens, None if it is not known.
    """

    turns: Turns
    timeout_s: float
    vocabulary: int | None = None

    def enter(self, conversations: Sequence[Conversation]) -> None:
        """Ask for all conversations, then let them go on or end, in their order.

        Raises `RewardError` if too many answers never come.
        """
        with undisturbed():
            results = self.ask(conversations)
        for conversation, result in zip(conversations, results, strict=True):
            enter(conversation, result)

    def ask(self, conversations: Sequence[Conversation]) -> list[CallResult]:
        """The answer to each conversation, an `AnswerError` in its place, or the error of the call."""
        calls = Calls(
            "rollout.turns",
            lambda i: self._asked(conversations[i]),
            CallSettings(timeout_s=self.timeout_s),
            at_once=calls_at_once(self.turns),
            limit_s=math.inf if _is_async(self.turns) else self.timeout_s,
            sample=lambda i: f"prompt {conversations[i].prompt.id!r}",
        )
        results = calls.run(range(len(conversations)))
        return [results[i] for i in range(len(conversations))]

    def _asked(self, conversation: Conversation) -> Reply | End | AnswerError:
        answer: object = self.turns(conversation.prompt, conversation.trajectory())
        if _is_async(self.turns) and inspect.iscoroutine(answer):
            answer = run_coroutine(answer, self.timeout_s)
        try:
            return checked(answer, self.vocabulary)
        except AnswerError as error:
            return error


def enter(conversation: Conversation, result: CallResult) -> None:
    """Let the conversation go on or end as the result of asking says."""
    if isinstance(result.value, Reply | End):
        conversation.go_on(result.value)
    elif isinstance(result.value, AnswerError):
        conversation.fail(f"rollout.turns returned {result.value}")
    else:
        conversation.fail(str(result.error), timed_out=result.timed_out)


class Answering:
    """Asks in threads, while the engine draws other conversations.

    The conversation is not to be touched between `add` and `take`.
    """

    def __init__(self, answers: Answers) -> None:
        self._answers = answers
        self._at_once = calls_at_once(answers.turns)
        self._waiting: deque[Conversation] = deque()
        self._threads = 0
        self._lock = Lock()
        self._done: SimpleQueue[tuple[Conversation, CallResult | BaseException]] = SimpleQueue()
        self._unanswered = 0

    def __len__(self) -> int:
        """The number of conversations that have been added and not taken."""
        return self._unanswered

    def add(self, conversation: Conversation) -> None:
        self._unanswered += 1
        with self._lock:
            self._waiting.append(conversation)
            if self._threads == self._at_once:
                return
            self._threads += 1
        start_thread(self._work, "rollout.turns")

    def take(self, within_s: float | None = None) -> list[Conversation]:
        """Those that have been answered and now go on or have ended; waits up to ``within_s`` for the first.

        None waits until there is one. Raises `RewardError` if too many answers never come.
        """
        taken: list[Conversation] = []
        wait_s = self._answers.timeout_s + SLACK_S if within_s is None else within_s
        while self._unanswered:
            try:
                conversation, result = self._done.get(timeout=0 if taken else wait_s)
            except Empty:
                if taken or within_s is not None:
                    break
                raise RuntimeError(f"rollout.turns: no call ended within {wait_s:g} s") from None
            if isinstance(result, BaseException):
                raise result
            self._unanswered -= 1
            enter(conversation, result)
            taken.append(conversation)
        return taken

    def stop(self) -> None:
        """Start no more calls."""
        with self._lock:
            self._waiting.clear()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                conversation = self._waiting.popleft()
            result: CallResult | BaseException
            try:
                (result,) = self._answers.ask([conversation])
            except BaseException as error:  # noqa: BLE001  raised again in `take`
                result = error
            self._done.put((conversation, result))
