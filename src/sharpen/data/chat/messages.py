"""Messages as chat templates expect them, and what a row gives a template beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers.utils.chat_template_utils import get_json_schema

from sharpen.data.json_text import parsed
from sharpen.errors import DataError
from sharpen.types import Message, Row

REASONING = ("reasoning_content", "thinking", "reasoning")
"""The keys under which a message may hold its reasoning; transformers gives templates each under the names they read.
"""
_TEXT_PARTS = ("text", "input_text", "output_text")
_TRAINED = ("weight", "train", "train_on_turn", "loss")
"""Keys by which data sets say whether a turn is trained on; 0 or false: it is not."""


@dataclass(frozen=True, slots=True)
class Wants:
    """How a template wants messages: content as a list of parts, and the arguments of tool calls as JSON text."""

    parts: bool = False
    arguments_as_text: bool = False


def normalised(messages: Sequence[Message], where: str, wants: Wants = Wants(), *, first: int = 1) -> list[Message]:
    """The messages as a template reads them. ``where`` names the row in errors, ``first`` is the first one's number.

    Content is one text: text parts are joined, or the other way round where the template wants parts. Tool calls are
    ``{"type": "function", "function": {"name": …, "arguments": {…}}}``: arguments given as JSON text become objects,
    and a single ``function_call`` becomes a list of one. Keys whose value is null are left out, as Arrow fills them in;
    those within a JSON text stay.

    Raises DataError for content that is no text, and for calls that are malformed.
    """
    return [
        _message(message, f"{where}: message {number}", wants) for number, message in enumerate(messages, start=first)
    ]


def given_by(row: Row, where: str) -> Mapping[str, Any]:
    """What a row gives the template beside its messages. ``where`` names the row in errors.

    Columns ``tools`` and ``documents``, lists or JSON text, and ``chat_template_kwargs``, the row's own arguments of
    the template. A tool is a JSON schema, with or without ``{"type": "function", "function": …}`` around it, or in
    Python a function. A row without tools may have them in ``functions``, as OpenAI's older format does. An empty
    column is none.

    Raises DataError for columns that hold anything else.
    """
    given: dict[str, Any] = {}
    own = _from_json(row.get("chat_template_kwargs"), f"{where}: column `chat_template_kwargs`")
    if own:
        if not isinstance(own, Mapping):
            raise DataError(f"{where}: column `chat_template_kwargs` must be an object, not {_shown(own)}")
        given.update(without_nulls(own))
    for column in ("tools", "functions"):
        if "tools" not in given and (tools := _list_of(row, column, where)):
            given["tools"] = [_tool(t, f"{where}: column `{column}`, tool {i}") for i, t in enumerate(tools, start=1)]
    if documents := _list_of(row, "documents", where):
        for number, document in enumerate(documents, start=1):
            if not isinstance(document, Mapping):
                raise DataError(
                    f"{where}: column `documents`, document {number} must be an object like "
                    f'{{"title": "…", "text": "…"}}, not {_shown(document)}'
                )
        given["documents"] = documents
    return given


def with_text(message: Message) -> Message:
    """A message that `normalised` accepts, its content as a text."""
    parts = message.get("content")
    return message if isinstance(parts, str | None) else {**message, "content": "".join(part["text"] for part in parts)}


def said_by(message: Message) -> str:
    """The text of a message, without blanks around it; what is no text counts as none."""
    content = message.get("content")
    parts = (
        [part.get("text") for part in content if isinstance(part, Mapping)] if isinstance(content, list) else [content]
    )
    return "".join(part for part in parts if isinstance(part, str)).strip()


def untrained_key(turn: Mapping[str, Any]) -> str | None:
    """The key by which a turn says that it is not to be trained on, or with another weight than 1; None without one."""
    for key in _TRAINED:
        value = turn.get(key)
        if isinstance(value, int | float) and (not value or (key == "weight" and value != 1)):
            return key
    return None


def _message(message: Message, what: str, wants: Wants) -> Message:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise DataError(f'{what} must be an object like {{"role": "user", "content": "…"}}, not {_shown(message)}')
    said = {key: value if key == "content" else without_nulls(value) for key, value in message.items()}
    said = {key: value for key, value in said.items() if value is not None}
    what = f"{what} ({said['role']})"
    calls = _calls(said, what, wants)
    for key in ("tool_calls", "function_call"):
        said.pop(key, None)
    texts = _texts(said.get("content"), what, has_calls=bool(calls))
    said["content"] = [{"type": "text", "text": text} for text in texts] if wants.parts else "".join(texts)
    for key in REASONING:
        if not isinstance(said.get(key, ""), str):
            raise DataError(f"{what}: `{key}` must be a text, not {_shown(said[key])}")
    return {**said, "tool_calls": calls} if calls else said


def _texts(content: Any, what: str, *, has_calls: bool) -> list[str]:
    if isinstance(content, str):
        return [content]
    if content is None:
        if not has_calls:
            raise DataError(f"{what} has neither `content` nor `tool_calls`")
        return [""]
    if not isinstance(content, (list, tuple)):
        raise DataError(f"{what}: `content` must be a text or a list of text parts, not {_shown(content)}")
    return [_part(part, f"{what}: part {number} of `content`") for number, part in enumerate(content, start=1)] or [""]


def _part(part: Any, what: str) -> str:
    given = without_nulls(part)
    if not isinstance(given, dict) or not isinstance(given.get("type"), str):
        raise DataError(f'{what} must be an object like {{"type": "text", "text": "…"}}, not {_shown(part)}')
    if given["type"] not in _TEXT_PARTS:
        raise DataError(f"{what} is of type {given['type']!r}: only text is served")
    text = given.get("text")
    if not isinstance(text, str):
        raise DataError(f"{what}: `text` must be a string, not {_shown(text)}")
    if unknown := [key for key in given if key not in ("type", "text")]:
        raise DataError(f"{what} has beside its text {', '.join(f'`{key}`' for key in unknown)}, which is not served")
    return text


def _calls(said: Mapping[str, Any], what: str, wants: Wants) -> list[dict[str, Any]]:
    given = _from_json(said.get("tool_calls"), f"{what}: `tool_calls`") or []
    if not given and said.get("function_call"):
        given = [said["function_call"]]
    if not isinstance(given, list):
        raise DataError(f"{what}: `tool_calls` must be a list, not {_shown(given)}")
    return [_call(call, f"{what}: tool call {number}", wants) for number, call in enumerate(given, start=1)]


def _call(given: Any, what: str, wants: Wants) -> dict[str, Any]:
    call = _from_json(given, what)
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise DataError(
            f'{what} must be an object like {{"type": "function", "function": {{"name": "…", "arguments": {{…}}}}}}, '
            f"not {_shown(given)}"
        )
    text = function.get("arguments", {})
    arguments: Any = _from_json(text, f"{what}: `arguments`")
    if arguments is None:
        arguments = text = {}
    if not isinstance(arguments, Mapping):
        raise DataError(f"{what}: `arguments` must be an object or its JSON text, not {_shown(text)}")
    if wants.arguments_as_text:
        arguments = text if isinstance(text, str) else json.dumps(arguments, ensure_ascii=False)
    around = {key: call[key] for key in ("id", "index") if key in call} if function is call else call
    inner = {key: value for key, value in function.items() if key not in ("id", "index", "type")}
    return {**around, "type": "function", "function": {**inner, "arguments": arguments}}


def _list_of(row: Row, column: str, where: str) -> list[Any]:
    value = row.get(column)
    given = _from_json(value, f"{where}: column `{column}`") if isinstance(value, str) else without_nulls(value)
    if given is None:
        return []
    if not isinstance(given, list):
        raise DataError(f"{where}: column `{column}` must be a list, or its JSON text, not {_shown(given)}")
    return given


def _tool(given: Any, what: str) -> dict[str, Any]:
    if callable(given):
        try:
            return get_json_schema(given)
        # transformers raises its own, for lacking type hints and docstrings; its parser may raise any.
        except Exception as error:
            raise DataError(f"{what}: no JSON schema can be made of this function: {error}") from error
    tool = _from_json(given, what)
    function = tool.get("function", tool) if isinstance(tool, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise DataError(
            f'{what} must be an object like {{"type": "function", "function": {{"name": "…", "description": "…", '
            f'"parameters": {{…}}}}}}, not {_shown(given)}'
        )
    around = {} if function is tool else tool
    inner = {key: value for key, value in function.items() if function is not tool or key != "type"}
    if "parameters" in inner:
        inner["parameters"] = _from_json(inner["parameters"], f"{what}: `parameters`")
    return {**around, "type": "function", "function": inner}


def _from_json(value: Any, what: str) -> Any:
    """What a JSON text holds, None if it is blank; anything else as it is."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return None
    try:
        return parsed(value)
    except ValueError as error:
        raise DataError(f"{what} is not valid JSON: {error}: {value[:60]!r}") from error


def without_nulls(value: Any) -> Any:
    """Objects without the keys whose value is null, at any depth."""
    if isinstance(value, Mapping):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(inner) for inner in value] if isinstance(value, (list, tuple)) else value


def _shown(value: Any) -> str:
    return f"{type(value).__name__} ({repr(value)[:60]})"
