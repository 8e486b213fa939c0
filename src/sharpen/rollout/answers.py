"""Asks what answers the policy for its replies, with a time limit: for many together, or for each as its turn ends."""

from __future__ import annotations

import inspect
import math
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock

from sharpen.errors import RecipeError
from sharpen.rewards.execution.calls import CallResult, Calls
from sharpen.rewards.execution.concurrency import run_concurrently
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


def calls_at_once(turns: Turns, setting: str = "rollout.turns") -> int:
    """The function's attribute ``at_once``, else `ASYNC_AT_ONCE` for an ``async def`` function and 1 for any other.

    Raises RecipeError, which names the ``setting``, if the attribute is not a whole number of 1 or more.
    """
    at_once = getattr(turns, "at_once", ASYNC_AT_ONCE if _is_async(turns) else 1)
    if isinstance(at_once, bool) or not isinstance(at_once, int) or at_once < 1:
        raise RecipeError(f"{setting}: the attribute at_once is {at_once!r}, not a whole number of 1 or more")
    return at_once


def _is_async(turns: Turns) -> bool:
    return inspect.iscoroutinefunction(turns) or inspect.iscoroutinefunction(type(turns).__call__)


@dataclass(frozen=True, slots=True)
class Answers:
    """Calls ``turns`` for conversations, up to `calls_at_once` of them concurrently.

    An ``async def`` function is awaited on the event loop of async rewards. An exception, an answer that `checked`
    refuses, and one that takes longer than ``timeout_s`` are recorded with the trajectory. ``vocabulary`` is the number
    of the model's tokens, None if it is not known. ``setting`` is what messages call the function.
    """

    turns: Turns
    timeout_s: float
    vocabulary: int | None = None
    setting: str = "rollout.turns"

    def ask(self, conversations: Sequence[Conversation]) -> list[CallResult]:
        """The answer to each conversation, an `AnswerError` in its place, or the error of the call."""
        calls = Calls(
            self.setting,
            lambda i: self._asked(conversations[i]),
            CallSettings(timeout_s=self.timeout_s),
            at_once=calls_at_once(self.turns, self.setting),
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


def answer_all(asked: Sequence[tuple[Answers, Sequence[Conversation]]]) -> None:
    """Ask for all conversations, then let them go on or end, in their order. Different functions run concurrently.

    Raises `RewardError` if too many answers never come.
    """
    with undisturbed():
        results = run_concurrently(
            [(id(answers.turns), partial(answers.ask, conversations)) for answers, conversations in asked]
        )
    for (answers, conversations), of_them in zip(asked, results, strict=True):
        for conversation, result in zip(conversations, of_them, strict=True):
            enter(conversation, result, answers.setting)


def enter(conversation: Conversation, result: CallResult, setting: str) -> None:
    """Let the conversation go on or end as the result of asking says; ``setting`` names the function that was asked."""
    if isinstance(result.value, Reply | End):
        conversation.go_on(result.value)
    elif isinstance(result.value, AnswerError):
        conversation.fail(f"{setting} returned {result.value}")
    else:
        conversation.fail(str(result.error), timed_out=result.timed_out)


class Answering:
    """Asks in threads, while the engine draws other conversations.

    The conversation is not to be touched between `add` and `take`.
    """

    def __init__(self, answers_of: Callable[[Conversation], Answers]) -> None:
        self._answers_of = answers_of
        # By the function that is asked, which bounds its concurrent calls.
        self._waiting: defaultdict[int, deque[tuple[Answers, Conversation]]] = defaultdict(deque)
        self._threads: Counter[int] = Counter()
        self._lock = Lock()
        self._done: SimpleQueue[tuple[Answers, Conversation, CallResult | BaseException]] = SimpleQueue()
        self._unanswered = 0
        self._longest_s = 0.0

    def __len__(self) -> int:
        """The number of conversations that have been added and not taken."""
        return self._unanswered

    def add(self, conversation: Conversation) -> None:
        answers = self._answers_of(conversation)
        function = id(answers.turns)
        self._unanswered += 1
        self._longest_s = max(self._longest_s, answers.timeout_s)
        with self._lock:
            self._waiting[function].append((answers, conversation))
            if self._threads[function] == calls_at_once(answers.turns, answers.setting):
                return
            self._threads[function] += 1
        start_thread(partial(self._work, function), answers.setting)

    def take(self, within_s: float | None = None) -> list[Conversation]:
        """Those that have been answered and now go on or have ended; waits up to ``within_s`` for the first.

        None waits until there is one. Raises `RewardError` if too many answers never come.
        """
        taken: list[Conversation] = []
        wait_s = self._longest_s + SLACK_S if within_s is None else within_s
        while self._unanswered:
            try:
                answers, conversation, result = self._done.get(timeout=0 if taken else wait_s)
            except Empty:
                if taken or within_s is not None:
                    break
                raise RuntimeError(f"turns: no call ended within {wait_s:g} s") from None
            if isinstance(result, BaseException):
                raise result
            self._unanswered -= 1
            enter(conversation, result, answers.setting)
            taken.append(conversation)
        return taken

    def stop(self) -> None:
        """Start no more calls."""
        with self._lock:
            for waiting in self._waiting.values():
                waiting.clear()

    def _work(self, function: int) -> None:
        while True:
            with self._lock:
                if not self._waiting[function]:
                    self._threads[function] -= 1
                    return
                answers, conversation = self._waiting[function].popleft()
            result: CallResult | BaseException
            try:
                (result,) = answers.ask([conversation])
            except BaseException as error:  # noqa: BLE001  raised again in `take`
                result = error
            self._done.put((answers, conversation, result))
