"""Asks what answers the policy for its replies, with a time limit."""

from __future__ import annotations

from collections.abc import Sequence

from sharpen.rewards.execution.calls import Calls
from sharpen.rewards.execution.settings import CallSettings
from sharpen.rewards.execution.user_code import undisturbed
from sharpen.rollout.turns import Conversation, Reply, Turns
from sharpen.types import End


def answer(conversations: Sequence[Conversation], turns: Turns, timeout_s: float) -> None:
    """Let each of the conversations go on or end, in their order.

    An exception, anything but a `Reply` or an `End`, and an answer that takes longer than ``timeout_s`` are recorded
    with the trajectory. Raises `RewardError` if too many answers never come.
    """
    calls = Calls(
        "rollout.turns",
        lambda i: _checked(turns(conversations[i].prompt, conversations[i].trajectory())),
        CallSettings(timeout_s=timeout_s),
        at_once=1,
        limit_s=timeout_s,
        sample=lambda i: f"prompt {conversations[i].prompt.id!r}",
    )
    with undisturbed():
        results = calls.run(range(len(conversations)))
    for i, conversation in enumerate(conversations):
        result = results[i]
        if isinstance(result.value, Reply | End):
            conversation.go_on(result.value)
        else:
            conversation.fail(str(result.error), timed_out=result.timed_out)


def _checked(answer: object) -> Reply | End:
    if not isinstance(answer, Reply | End):
        raise TypeError(f"it returned {answer!r:.60}, not a Reply or an End")
    if isinstance(answer, Reply) and not answer.token_ids:
        raise ValueError("its reply has no tokens: token_ids is the whole context, not only what is added to it")
    return answer
