"""What a chat template leaves out of a conversation: templates skip what they do not know without a word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sharpen.data.chat.format import ChatFormat, message_name
from sharpen.data.chat.messages import REASONING, normalised
from sharpen.data.chat.probes import PROBE, rendering
from sharpen.data.chat.written import opened_thinking
from sharpen.errors import DataError
from sharpen.types import Message

_OTHERS = "or name a template that writes it (`data.chat_template`)"
_REMEDIES = {"the content": "use a role that it knows"}
_USUAL_REMEDY = "write it into the content"


def check_row(
    chat: ChatFormat,
    messages: Sequence[Message],
    where: str,
    given: Mapping[str, Any],
    *,
    start: int | None = None,
    text: str | None = None,
) -> None:
    """Raises as `refuse_left_out` does, and for a user's message that is empty and a turn that is not to be trained."""
    for index, message in enumerate(normalised(messages, where, first=chat.number(messages, 0))):
        name = message_name(message, chat.number(messages, index))
        if message["role"] == "user" and not _said(message):
            raise DataError(f"{where}: {name} is empty; write a prompt")
        if start is not None and index >= start and (mark := _not_trained(message)):
            raise DataError(
                f"{where}: {name} has {mark}, but every turn of the assistant is trained on from the first: end the "
                "row before it, or give the turns before it as `prompt` and those after it as `completion`"
            )
    refuse_left_out(chat, messages, where, given, start=start, text=text)


def refuse_left_out(
    chat: ChatFormat,
    messages: Sequence[Message],
    where: str,
    given: Mapping[str, Any],
    *,
    start: int | None = None,
    text: str | None = None,
) -> None:
    """Raises DataError if the template leaves out a message's content or tool calls, or the row's tools or documents.

    ``messages`` are a row's conversation with its system message, and ``start`` is the first that is trained on, if
    any: from there on the assistant's reasoning must be written too. ``text`` is the rendered conversation, if it is at
    hand.

    A part that stands in the rendered text is taken as written. If it does not, as where a template escapes it, or if
    the template sees the first of its kind, a word is put in its place, which must appear.
    """
    conversation = normalised(messages, where, chat.wants, first=chat.number(messages, 0))
    if text is None:
        text = chat.text(messages, where, given, add_generation_prompt=False)
    for index, message in enumerate(conversation):
        trained = start is not None and index >= start and message["role"] == "assistant"
        if lost := _lost(chat, conversation, index, given, text, trained=trained):
            name, remedy = message_name(message, chat.number(messages, index)), _REMEDIES.get(lost, _USUAL_REMEDY)
            raise DataError(f"{where}: {chat.called} leaves out {lost} of {name}: {remedy}, {_OTHERS}")
    for column in ("tools", "documents"):
        if column in given and not _writes_column(chat, conversation, given, column, text):
            raise DataError(
                f"{where}: {chat.called} leaves out column `{column}`: remove or rename the column, {_OTHERS}"
            )


def _lost(
    chat: ChatFormat, conversation: list[Message], index: int, given: Mapping[str, Any], text: str, *, trained: bool
) -> str | None:
    """What the template leaves out of one message, in words."""
    message = conversation[index]
    said, calls = _said(message), message.get("tool_calls", [])
    kind = f"{message['role']} {bool(calls)}"
    probe: Any = [{"type": "text", "text": PROBE}] if chat.wants.parts else PROBE
    if said and not (kind in chat.written and said in text):
        if not _appears(chat, conversation, index, {"content": probe}, given):
            return "the content"
        chat.written.add(kind)
    if calls and not ("calls" in chat.written and all(call["function"]["name"] in text for call in calls)):
        if not _writes_calls(chat, conversation, index, given):
            return "the tool calls"
        chat.written.add("calls")
    reasoning = next((key for key in REASONING if message.get(key, "").strip()), None)
    if trained and reasoning is not None:
        # Templates may leave out that of earlier turns.
        so_far = conversation[: index + 1]
        aliases = dict.fromkeys(REASONING, None)
        if not _appears(chat, so_far, index, {**aliases, reasoning: PROBE}, given):
            # Where the prompt opens thinking, a demonstration goes on with the message's own.
            prompt = rendering(chat.render, so_far[:-1], given, add_generation_prompt=True) or ""
            if opened_thinking(prompt, rendering(chat.render, so_far, given) or "") is None:
                return f"`{reasoning}`"
    return None


def _writes_calls(chat: ChatFormat, conversation: list[Message], index: int, given: Mapping[str, Any]) -> bool:
    first, *others = conversation[index]["tool_calls"]
    words = (f"{PROBE}name", f"{PROBE}key", f"{PROBE}value")
    name, key, value = words
    arguments = f'{{"{key}": "{value}"}}' if chat.wants.arguments_as_text else {key: value}
    calls = [{**first, "function": {**first["function"], "name": name, "arguments": arguments}}, *others]
    return _appears(chat, conversation, index, {"tool_calls": calls}, given, words)


def _writes_column(
    chat: ChatFormat, conversation: list[Message], given: Mapping[str, Any], column: str, text: str
) -> bool:
    first, *others = given[column]
    if column == "tools":
        names = [tool["function"]["name"] for tool in given[column]]
        changed = {**first, "function": {**first["function"], "name": PROBE}}
    else:
        names = [value for document in given[column] for value in document.values() if isinstance(value, str)]
        changed = {key: PROBE if isinstance(value, str) else value for key, value in first.items()}
    if column in chat.written and all(name in text for name in names):
        return True
    rendered = rendering(chat.render, conversation, {**given, column: [changed, *others]})
    if rendered is not None and PROBE not in rendered:
        return False
    chat.written.add(column)
    return True


def _appears(
    chat: ChatFormat,
    conversation: list[Message],
    index: int,
    change: Mapping[str, Any],
    given: Mapping[str, Any],
    words: Sequence[str] = (PROBE,),
) -> bool:
    """Whether a changed message is rendered with these words. A template that rejects the change is not blamed."""
    changed = [*conversation]
    changed[index] = {**conversation[index], **change}
    rendered = rendering(chat.render, changed, given)
    return rendered is None or all(word in rendered for word in words)


def _said(message: Message) -> str:
    content = message["content"]
    return (content if isinstance(content, str) else "".join(part["text"] for part in content)).strip()


def _not_trained(message: Message) -> str | None:
    if message["role"] != "assistant":
        return None
    if message.get("weight") == 0:
        return "`weight: 0`"
    return "`train: false`" if message.get("train") is False else None
