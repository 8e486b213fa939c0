"""What a chat template leaves out of a conversation: templates skip what they do not know without a word."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sharpen.data.chat.format import ChatFormat, message_name
from sharpen.data.chat.messages import REASONING, normalised, said_by, untrained_key
from sharpen.data.chat.probes import PROBE, rendering
from sharpen.data.chat.template import variables_of
from sharpen.data.chat.written import opened_thinking
from sharpen.errors import DataError
from sharpen.types import Message

_OTHERS = "or name a template that writes it (`data.chat_template`)"
_REMEDIES = {
    "the content": "use a role that it knows",
    "the thinking": "remove it, or let the template's arguments allow it",
}
_USUAL_REMEDY = "write it into the content"
_THINKING = re.compile(r"(?:\s*<\w+>)?(.*?)</\w+>", re.DOTALL)
"""What content says before a tag is closed, as in ``<think>…</think>``."""


def check_row(
    chat: ChatFormat,
    messages: Sequence[Message],
    where: str,
    given: Mapping[str, Any],
    *,
    start: int | None = None,
    text: str | None = None,
) -> None:
    """Raises as `refuse_left_out` does, and for a user's message that is empty, a turn that is not to be trained, and
    an argument of the row that the template does not read."""
    refuse_left_out(chat, messages, where, given, start=start, text=text)
    of_row = [name for name in given if name not in ("tools", "documents")]
    if idle := [name for name in of_row if name not in variables_of(chat.template(given))]:
        raise DataError(f"{where}: column `chat_template_kwargs` gives `{idle[0]}`, which {chat.called} does not read")
    for index, message in enumerate(messages):
        if message["role"] == "user" and not said_by(message):
            raise DataError(f"{where}: {message_name(message, chat.number(messages, index))} is empty; write a prompt")
        if start is not None and index >= start and (mark := _not_trained(message)):
            raise DataError(
                f"{where}: {message_name(message, chat.number(messages, index))} has {mark}, but every turn of the "
                "assistant is trained on from the first: end the row before it, or give the turns before it as "
                "`prompt` and those after it as `completion`"
            )


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
    the template sees the first of its kind, a word is put in its place, which must appear: in the conversation or in
    the prompt of a turn that is trained on. Mistral writes the system message with the last message alone.
    """
    first = chat.number(messages, 0)
    conversation = normalised(messages, where, chat.wants, first=first)
    if text is None:
        text = chat.text(messages, where, given, add_generation_prompt=False)
    trained = [
        index
        for index, message in enumerate(conversation)
        if start is not None and index >= start and message["role"] == "assistant"
    ]
    row = _Row(chat, conversation, given, text, trained)
    for index, message in enumerate(conversation):
        if lost := row.lost(index):
            name, remedy = message_name(message, first + index), _REMEDIES.get(lost, _USUAL_REMEDY)
            raise DataError(f"{where}: {chat.called} leaves out {lost} of {name}: {remedy}, {_OTHERS}")
    for column in ("tools", "documents"):
        if column in given and not row.writes_column(column):
            older = " (or `functions`)" if column == "tools" else ""
            raise DataError(
                f"{where}: {chat.called} leaves out column `{column}`{older}: remove or rename the column, {_OTHERS}"
            )


@dataclass(frozen=True, slots=True)
class _Row:
    """A conversation that is `normalised`, as rendered, and the turns in it that are trained on."""

    chat: ChatFormat
    conversation: list[Message]
    given: Mapping[str, Any]
    text: str
    trained: Sequence[int]

    def lost(self, index: int) -> str | None:
        """What the template leaves out of one message, in words."""
        message, written = self.conversation[index], self.chat.written
        said, calls = said_by(message), message.get("tool_calls", [])
        kind = f"{message['role']} {bool(calls)}"
        probe: Any = [{"type": "text", "text": PROBE}] if self.chat.wants.parts else PROBE
        if said and not (kind in written and said in self.text):
            if not self._appears(index, {"content": probe}):
                return "the content"
            written.add(kind)
        if calls and not ("calls" in written and all(call["function"]["name"] in self.text for call in calls)):
            if not self._writes_calls(index):
                return "the tool calls"
            written.add("calls")
        if index in self.trained:
            reasoning = next((key for key in REASONING if message.get(key, "").strip()), None)
            if reasoning is not None:
                aliases = dict.fromkeys(REASONING, None)
                if not self._writes_reasoning(index, {**aliases, reasoning: PROBE}):
                    return f"`{reasoning}`"
            found = _THINKING.match(said)
            thinking = found[1].strip() if found else ""
            if found and thinking and not ("thinking" in written and thinking in self.text):
                thought: Any = said[: found.start(1)] + PROBE + said[found.end(1) :]
                content = [{"type": "text", "text": thought}] if self.chat.wants.parts else thought
                if not self._writes_reasoning(index, {"content": content}):
                    return "the thinking"
                written.add("thinking")
        return None

    def writes_column(self, column: str) -> bool:
        first, *others = self.given[column]
        if column == "tools":
            names = [tool["function"]["name"] for tool in self.given[column]]
            changed = {**first, "function": {**first["function"], "name": PROBE}}
        else:
            names = [value for document in self.given[column] for value in document.values() if isinstance(value, str)]
            changed = {key: PROBE if isinstance(value, str) else value for key, value in first.items()}
        if column in self.chat.written and all(name in self.text for name in names):
            return True
        if not self._rendered_with((PROBE,), self.conversation, {**self.given, column: [changed, *others]}, 0):
            return False
        self.chat.written.add(column)
        return True

    def _writes_calls(self, index: int) -> bool:
        first, *others = self.conversation[index]["tool_calls"]
        words = (f"{PROBE}name", f"{PROBE}key", f"{PROBE}value")
        name, key, value = words
        arguments = f'{{"{key}": "{value}"}}' if self.chat.wants.arguments_as_text else {key: value}
        calls = [{**first, "function": {**first["function"], "name": name, "arguments": arguments}}, *others]
        return self._appears(index, {"tool_calls": calls}, words)

    def _writes_reasoning(self, index: int, change: Mapping[str, Any]) -> bool:
        """Templates may leave out that of earlier turns, so the conversation ends with this one."""
        render, so_far = self.chat.render, self.conversation[: index + 1]
        changed = {**so_far[-1], **change}
        rendered = rendering(render, [*so_far[:-1], changed], self.given)
        if rendered is None or PROBE in rendered:
            return True
        # Where the prompt opens thinking, a demonstration goes on with the message's own.
        prompt = rendering(render, so_far[:-1], self.given, add_generation_prompt=True) or ""
        return opened_thinking(prompt, rendering(render, so_far, self.given) or "") is not None

    def _appears(self, index: int, change: Mapping[str, Any], words: Sequence[str] = (PROBE,)) -> bool:
        changed = [*self.conversation]
        changed[index] = {**changed[index], **change}
        return self._rendered_with(words, changed, self.given, index)

    def _rendered_with(
        self, words: Sequence[str], messages: Sequence[Message], given: Mapping[str, Any], index: int
    ) -> bool:
        """Whether the words stand in the conversation, or a prompt that is trained on, with message ``index``.

        A template that rejects the words is not blamed.
        """
        for length in (len(messages), *(turn for turn in self.trained if turn > index)):
            rendered = rendering(
                self.chat.render, messages[:length], given, add_generation_prompt=length < len(messages)
            )
            if rendered is None or all(word in rendered for word in words):
                return True
        return False


def _not_trained(message: Message) -> str | None:
    key = untrained_key(message) if message["role"] == "assistant" else None
    return None if key is None else f"`{key}: {json.dumps(message[key])}`"
