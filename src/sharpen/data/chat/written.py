"""What an assistant has to write after a generation prompt that the rendered conversation does not begin with."""

from __future__ import annotations

import re
from collections.abc import Sequence

from sharpen.data.chat.messages import REASONING
from sharpen.errors import DataError
from sharpen.types import Message

_OPENED = re.compile(r"<(\w+)>\s*$")
"""A tag that a generation prompt opens, such as ``<think>``."""


def written_after(before: str, whole: str, messages: Sequence[Message], name: str) -> str:
    """What the last of ``messages`` adds to ``before``, their text up to it with the generation prompt.

    ``whole`` is the text of all of them, which does not begin with ``before``. Templates that open thinking in the
    generation prompt leave it out of the conversation: it comes from the message. Templates that move or drop what is
    before the question leave question and answer together: the answer is what follows the question.

    Raises DataError, with ``name``, the message's name, for any other difference, and for thinking that is not there.
    """
    opened = _OPENED.search(before)
    if opened is not None and whole.startswith(before[: opened.start()]):
        return _after_opening(opened, whole[opened.start() :], messages[-1], name)
    asked = text_of(messages[-2]).strip() if len(messages) > 1 else ""
    question = before[before.rfind(asked) :] if asked and asked in before else None
    found = -1 if question is None else whole.rfind(question)
    if question is not None and found >= 0:
        return whole[found + len(question) :]
    if thinking_of(messages[-1]):
        raise DataError(
            f"{name} has thinking, for which the generation prompt leaves no room: it ends with "
            f"{before[-40:]!r}. Remove the thinking, or let the template's arguments allow it"
        )
    raise DataError(
        f"{name}: with this answer the chat template writes the messages before it in another way than for the prompt, "
        f"so what the answer adds cannot be told apart. The prompt ends with {before[-40:]!r}, the conversation with "
        f"{whole[-40:]!r}"
    )


def _after_opening(opened: re.Match[str], rest: str, message: Message, name: str) -> str:
    """What is written after a tag that the generation prompt opens; the template renders the answer as ``rest``."""
    opening, closing = f"<{opened[1]}>", f"</{opened[1]}>"
    blanks = opened[0].removeprefix(opening)
    rest = rest.lstrip()
    if rest.startswith(opening):
        return rest.removeprefix(opening).removeprefix(blanks)
    if closing in rest and not rest.startswith(closing):
        return rest
    thinking, between = thinking_of(message), "\n\n"
    content = text_of(message)
    if closing in content:
        thinking, _, answer = content.partition(closing)
        thinking = thinking.lstrip().removeprefix(opening).removeprefix(blanks)
        between = answer[: len(answer) - len(answer.lstrip())]
    elif thinking:
        thinking = f"{thinking.strip()}\n"
    else:
        raise DataError(
            f"{name}: the generation prompt of the chat template opens {opening}, and this message closes no thinking: "
            f"write {opening}…{closing} at the beginning of its content, or give its `reasoning_content`"
        )
    answer = rest.removeprefix(closing).lstrip()
    return f"{thinking}{closing}{between}{answer}"


def thinking_of(message: Message) -> str:
    """A message's own thinking."""
    for key in REASONING:
        if isinstance(message.get(key), str) and message[key].strip():
            return str(message[key])
    found = re.match(r"\s*<(\w+)>(.*?)</\1>", text_of(message), re.DOTALL)
    return found[2].strip() if found else ""


def text_of(message: Message) -> str:
    """A message's content; parts of it are joined."""
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(str(part.get("text", "")) for part in content)
