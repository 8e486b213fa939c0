"""What a chat template wants and writes, learned by rendering small conversations with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any

from jinja2 import TemplateError, UndefinedError

from sharpen.data.chat.messages import Wants
from sharpen.types import Message

PROBE = "qzprobe"
"""A word that no template writes by itself and none changes."""

Render = Callable[..., Any]
"""`ChatFormat.render`."""


def wants_of(render: Render) -> Wants:
    """How a template wants messages. One that renders no probe at all is given texts and objects."""

    def rendered(*messages: Message) -> str:
        return rendering(render, messages, {}) or ""

    words = (f"{PROBE}asked", f"{PROBE}said")
    texts = rendered(*_exchange(*words))
    parts = rendered(*_exchange(*([{"type": "text", "text": word}] for word in words)))
    as_parts = not all(word in texts for word in words) and _holds_plainly(parts, words)

    arguments = {f"{PROBE}key": f"{PROBE}value"}
    as_json = json.dumps(arguments)
    objects, text = (rendered(*_called(given, as_parts)) for given in (arguments, as_json))
    # Where a template writes Python's form of an object, or fails to join it to a text, it is made for JSON text.
    spoilt = not objects or repr(arguments) in objects
    return Wants(parts=as_parts, arguments_as_text=spoilt and as_json in text)


def rendering(
    render: Render, messages: Sequence[Message], given: Mapping[str, Any], *, add_generation_prompt: bool = False
) -> str | None:
    """What a template makes of messages that are normalised; None if it rejects them."""
    return _tried(render, messages, given, add_generation_prompt)[0]


def complaint_about(render: Render, messages: Sequence[Message], given: Mapping[str, Any]) -> str | None:
    """What a template complains of in these messages; None if it renders them."""
    return _tried(render, messages, given, False)[1]


def complaint(error: Exception) -> str:
    """What a template's exception says in one line, with its type unless the template means it for its users."""
    # Python says in many ways where its recursion ended.
    text = "it calls itself without end" if isinstance(error, RecursionError) else " ".join(str(error).split())
    plain = type(error) in (TemplateError, UndefinedError) and text
    return text if plain else f"{type(error).__name__}: {text}".removesuffix(": ")


def alike(first: str, second: str) -> int:
    """How many characters two texts begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))


def _tried(
    render: Render, messages: Sequence[Message], given: Mapping[str, Any], add_generation_prompt: bool
) -> tuple[str | None, str | None]:
    try:
        return str(render(messages, given, tokenize=False, add_generation_prompt=add_generation_prompt)), None
    except Exception as error:  # noqa: BLE001 - a template is a program of the model's folder: it raises anything
        return None, complaint(error)


def _holds_plainly(text: str, words: Sequence[str]) -> bool:
    """Whether the words are there, and not as parts in Python's form."""
    return all(word in text and repr(word) not in text for word in words)


def _exchange(asked: Any, said: Any) -> tuple[Message, Message]:
    return {"role": "user", "content": asked}, {"role": "assistant", "content": said}


def _called(arguments: Any, as_parts: bool) -> tuple[Message, Message]:
    asked, empty = (([{"type": "text", "text": text}] if as_parts else text) for text in ("Hi", ""))
    function = {"name": "look", "arguments": arguments}
    # Mistral's templates want ids of nine characters.
    calls = [{"type": "function", "id": "abcdefghi", "function": function}]
    return {"role": "user", "content": asked}, {"role": "assistant", "content": empty, "tool_calls": calls}
