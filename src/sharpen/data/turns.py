"""Turns of conversations as others write them → messages with ``role`` and ``content``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from sharpen.data.chat.messages import untrained_key
from sharpen.data.json_text import parsed
from sharpen.errors import DataError
from sharpen.suggest import did_you_mean
from sharpen.types import Message

ROLES = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "assistant", "chatgpt", "model"), "assistant"),
    "system": "system",
    **dict.fromkeys(("tool", "observation", "function_response"), "tool"),
}
"""The role of each speaker whom ShareGPT's turns name; ``function_call`` is an assistant that calls a tool."""

FUNCTION_CALL = "function_call"

_HH_TURN = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")


def is_sharegpt(value: Any) -> bool:
    """Whether this is a turn of ShareGPT, or a list that begins with one."""
    turn = value[0] if isinstance(value, list) and value else value
    return isinstance(turn, Mapping) and {"from", "value"} <= turn.keys()


def from_sharegpt(turns: Any, what: str) -> list[Message]:
    """Messages from ShareGPT's turns, ``{"from": "human", "value": "…"}``. ``what`` names the turns in errors.

    Raises DataError, with the number of the turn, for a speaker of no known role, a value that is no text, a call of a
    tool that is not JSON with ``name`` and ``arguments``, and a turn that is not to be trained on.
    """
    if not isinstance(turns, list):
        raise DataError(f"{what} must be a list of turns, not {type(turns).__name__} ({repr(turns)[:60]})")
    return [_from_turn(turn, f"{what}, turn {number}") for number, turn in enumerate(turns, start=1)]


def is_hh(text: str) -> bool:
    """Whether a text begins as those of Anthropic's HH-RLHF do."""
    turn = _HH_TURN.match(text)
    return turn is not None and turn[1] == "Human"


def from_hh(text: Any, what: str) -> list[Message]:
    """Messages from a text like ``"\\n\\nHuman: …\\n\\nAssistant: …"``, as in Anthropic's HH-RLHF."""
    if not isinstance(text, str) or not is_hh(text):
        raise DataError(f"{what} must be a text that begins with 'Human:', as in other rows, not {repr(text)[:60]}")
    begins = list(_HH_TURN.finditer(text))
    ends = [turn.start() for turn in begins[1:]] + [len(text)]
    return [
        {"role": "user" if turn[1] == "Human" else "assistant", "content": text[turn.end() : end].strip()}
        for turn, end in zip(begins, ends, strict=True)
    ]


def transposed(messages: Any, what: str) -> list[Message]:
    """``{"role": […], "content": […]}``, as `datasets` gives a Sequence of objects, as a list of objects."""
    if not isinstance(messages, Mapping):
        raise DataError(f"{what} must hold lists of roles and of texts, as in other rows, not {repr(messages)[:60]}")
    lengths = {len(values) if isinstance(values, list) else -1 for values in messages.values()}
    if len(lengths) != 1 or -1 in lengths:
        raise DataError(f"{what} must hold lists of one length, one entry for each message: {repr(messages)[:60]}")
    return [dict(zip(messages, values, strict=True)) for values in zip(*messages.values(), strict=True)]


def _from_turn(turn: Any, what: str) -> Message:
    if not isinstance(turn, Mapping) or not {"from", "value"} <= turn.keys():
        raise DataError(f'{what} must be an object like {{"from": "human", "value": "…"}}, not {repr(turn)[:60]}')
    speaker, value = turn["from"], turn["value"]
    if not isinstance(value, str):
        raise DataError(f"{what}: `value` must be a text, not {type(value).__name__} ({repr(value)[:60]})")
    if (key := untrained_key(turn)) is not None and ROLES.get(speaker) in (None, "assistant"):
        raise DataError(
            f"{what}: `{key}` is {turn[key]!r}, but every turn of the assistant is trained on: end the "
            "conversation before this turn, or put it into the prompt of a row with `prompt` and `completion`"
        )
    if speaker == FUNCTION_CALL:
        return {"role": "assistant", "content": "", "tool_calls": _calls(value, what)}
    if speaker not in ROLES:
        near = did_you_mean(str(speaker), ROLES)
        raise DataError(f"{what}: `from` is {speaker!r}, a speaker of no known role.{near} Known: {', '.join(ROLES)}")
    return {"role": ROLES[speaker], "content": value}


def _calls(value: str, what: str) -> list[dict[str, Any]]:
    """The calls in the text of a ``function_call``: one object, or a list of them."""
    try:
        given = parsed(value)
    except ValueError as error:
        raise DataError(f"{what}: a function_call must be JSON, not {value[:60]!r}: {error}") from error
    calls = given if isinstance(given, list) else [given]
    for call in calls:
        if not isinstance(call, dict) or not isinstance(call.get("name"), str) or "arguments" not in call:
            raise DataError(f"{what}: a function_call must have `name` and `arguments`, not {value[:60]!r}")
    return [{"type": "function", "function": {"name": c["name"], "arguments": c["arguments"]}} for c in calls]
