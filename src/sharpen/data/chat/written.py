"""What an assistant has to write after a generation prompt that the rendered conversation does not begin with."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sharpen.data.chat.format import ChatFormat
from sharpen.data.chat.messages import REASONING
from sharpen.data.chat.probes import alike
from sharpen.errors import DataError
from sharpen.types import Message

_OPENED = re.compile(r"<(\w+)>\s*$")
"""A tag that a generation prompt opens, such as ``<think>``."""


def opened_thinking(prompt: str, whole: str) -> re.Match[str] | None:
    """The tag at the end of a prompt within which the assistant goes on, if the whole conversation leaves it out."""
    opened = None if whole.startswith(prompt) else _OPENED.search(prompt)
    return opened if opened is not None and whole.startswith(prompt[: opened.start()]) else None


def written_after(
    chat: ChatFormat,
    before: str,
    whole: str,
    messages: Sequence[Message],
    where: str,
    given: Mapping[str, Any],
) -> str:
    """What the last of ``messages`` adds to ``before``, their text up to it with the generation prompt.

    ``whole`` is the text of all of them, which does not begin with ``before``. Templates that open thinking in the
    generation prompt leave it out of the conversation: it comes from the message. Templates that move or drop what is
    before the question leave question and answer together: the answer is what follows the question. Templates whose
    prompt ends with empty thinking leave that out: the answer is what follows the rest of the prompt.

    Raises DataError for any other difference, and for thinking that is not there.
    """
    name = f"{where}: message {chat.number(messages, len(messages) - 1)} (assistant)"
    opened = opened_thinking(before, whole)
    if opened is not None:
        return _after_opening(opened, whole[opened.start() :], messages[-1], name)
    question = before[_start_of(chat, messages[:-1], -1, where, given, prompt=True) :]
    place = _start_of(chat, messages, -2, where, given, prompt=False)
    if question and whole.startswith(question, place):
        return whole[place + len(question) :]
    if thinking_of(messages[-1]):
        raise DataError(
            f"{name} has thinking, for which the generation prompt leaves no room: it ends with {before[-40:]!r}. "
            "Remove the thinking, or let the template's arguments allow it"
        )
    header = _header_of(chat, before, messages, where, given)
    if header and whole.startswith(header):
        return whole[len(header) :]
    raise DataError(
        f"{name}: with this answer the chat template writes the messages before it in another way than for the prompt, "
        f"so what the answer adds cannot be told apart. The prompt ends with {before[-40:]!r}, the conversation with "
        f"{whole[-40:]!r}"
    )


def _header_of(chat: ChatFormat, before: str, messages: Sequence[Message], where: str, given: Mapping[str, Any]) -> str:
    """What ``before`` and the conversation begin with alike, if that is all but the end of the generation prompt.

    Gemma 4's prompts end with empty thinking that conversations leave out.
    """
    asked = chat.text(messages[:-1], where, given, add_generation_prompt=False)
    # An answer that does not begin as the end of the prompt does.
    other = {"role": "assistant", "content": "qz"}
    answered = chat.text([*messages[:-1], other], where, given, add_generation_prompt=False)
    header = before[: alike(before, answered)]
    return header if header.startswith(asked) and len(header) > len(asked) else ""


def _start_of(
    chat: ChatFormat, messages: Sequence[Message], index: int, where: str, given: Mapping[str, Any], *, prompt: bool
) -> int:
    """Where the content of a message begins in the text of ``messages``: before that, other content changes nothing."""
    texts = []
    for word in ("qz", "zq"):
        changed = [*messages]
        changed[index] = {**messages[index], "content": word}
        texts.append(chat.text(changed, where, given, add_generation_prompt=prompt))
    return alike(*texts)


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
