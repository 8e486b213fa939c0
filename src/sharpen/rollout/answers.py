"""Asks what answers the policy for its replies, with a time limit."""

from __future__ import annotations

from collections.abc import Sequence

from sharpen.rewards.execution.calls import CallResult, Calls
from sharpen.rewards.execution.settings import CallSettings
from sharpen.rewards.execution.user_code import undisturbed
from sharpen.rollout.checked_answer import AnswerError, checked
from sharpen.rollout.turns import Conversation, Reply, Turns
from sharpen.types import End


def answer(conversations: Sequence[Conversation], turns: Turns, timeout_s: float, vocabulary: int | None) -> None:
    """Let each of the conversations go on or end, in their order.

    An exception, an answer that `checked` refuses, and one that takes longer than ``timeout_s`` are recorded with the
    trajectory. Raises `RewardError` if too many answers never come.
    """
    calls = Calls(
        "rollout.turns",
        lambda i: _asked(conversations[i], turns, vocabulary),
        CallSettings(timeout_s=timeout_s),
        at_once=1,
        limit_s=timeout_s,
        sample=lambda i: f"prompt {conversations[i].prompt.id!r}",
    )
    with undisturbed():
        results = calls.run(range(len(conversations)))
    for i, conversation in enumerate(conversations):
        _enter(conversation, results[i])


def _asked(conversation: Conversation, turns: Turns, vocabulary: int | None) -> Reply | End | AnswerError:
    """The answer to a conversation, or what is wrong with it."""
    so_far = conversation.trajectory()
    try:
        return checked(turns(conversation.prompt, so_far), conversation.context, vocabulary)
    except AnswerError as error:
        return error


def _enter(conversation: Conversation, result: CallResult) -> None:
    if isinstance(result.value, Reply | End):
        conversation.go_on(result.value)
    elif isinstance(result.value, AnswerError):
        conversation.fail(f"rollout.turns returned {result.value}")
    else:
        conversation.fail(str(result.error), timed_out=result.timed_out)
