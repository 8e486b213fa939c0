"""Model families by their chat templates, which lie in ``templates``, and what becomes of small conversations.

In an expected text, what is trained on stands between « and »; several texts are several samples. The templates are
our own, at a size that a test can hold. ``compared_with`` names the real template whose text for these conversations
was compared with ours, character by character; the instructions around a list of tools are shortened in all of them.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

from trained_tokenizers import make_tokenizer
from transformers import PreTrainedTokenizerFast

Row: TypeAlias = dict[str, Any]
DATE = datetime.date(2026, 3, 1)
TOOL = (
    '{"type": "function", "function": {"name": "add", "description": "Adds.", '
    '"parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}}}'
)


def said(role: str, content: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


_CALL = {"id": "abcdefghi", "type": "function", "function": {"name": "add", "arguments": {"x": 1}}}
_ADD = {
    "name": "add",
    "description": "Adds.",
    "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}},
}
CALLED = [
    said("user", "hi"),
    said("assistant", "", tool_calls=[_CALL]),
    said("tool", "2", name="add", tool_call_id="abcdefghi"),
    said("assistant", "yes"),
]
_THOUGHT = "<think>\nhmm\n</think>\n\nyes", "<think>\num\n</think>\n\nno"
CONVERSATIONS: dict[str, Row] = {
    "one": {"messages": [said("user", "hi"), said("assistant", "yes")]},
    "system": {"messages": [said("system", "be nice"), said("user", "hi"), said("assistant", "yes")]},
    "two": {
        "messages": [said("user", "hi"), said("assistant", "yes"), said("user", "why"), said("assistant", "no")],
    },
    "system and two": {
        "messages": [
            said("system", "be nice"),
            *[said("user", "hi"), said("assistant", "yes"), said("user", "why"), said("assistant", "no")],
        ],
    },
    "thinking": {
        "messages": [
            *[said("user", "hi"), said("assistant", _THOUGHT[0])],
            *[said("user", "why"), said("assistant", _THOUGHT[1])],
        ],
    },
    "reasoning": {"messages": [said("user", "hi"), said("assistant", "yes", reasoning_content="hmm")]},
    "tools": {"messages": CALLED, "tools": [{"type": "function", "function": _ADD}]},
    "calls": {"messages": CALLED},
    "documents": {
        "messages": [said("user", "hi"), said("assistant", "yes")],
        "documents": [{"doc_id": "1", "text": "Rivers flow."}],
    },
    "no thinking": {"messages": [said("system", "/no_think"), said("user", "hi"), said("assistant", "yes")]},
    "two answers": {"messages": [said("user", "hi"), said("assistant", "yes"), said("assistant", "no")]},
}


@dataclass(frozen=True)
class Rejected:
    """The row is an error that names it and says this, a regular expression."""

    why: str


Expected: TypeAlias = str | tuple[str, ...] | Rejected
NO_CALLS = Rejected(r"leaves out the tool calls of message 2 \(assistant\)")
NO_REASONING = Rejected(r"leaves out `reasoning_content` of message 2 \(assistant\)")
NO_TOOL_ROLE = Rejected(r"rejects this conversation at message 3 \(tool\): Only user.* assistant roles are supported")
ALTERNATE = Rejected(r"rejects this conversation at message \d \(\w+\): .*roles must alternate")


@dataclass(frozen=True)
class Family:
    """A chat template, the tokens of its tokenizer and what is known of it.

    ``stops`` are the ends of sequence that the model's ``generation_config.json`` declares, ``ends`` the tokens that
    end an assistant's turn. ``expected`` are what `CONVERSATIONS` become.
    """

    known_for: str
    compared_with: str
    make: str
    special: tuple[str, ...]
    bos: str | None
    eos: str
    stops: tuple[str, ...]
    ends: tuple[str, ...]
    expected: Mapping[str, Expected]
    added: tuple[str, ...] = ()
    rstrip: bool = False
    arguments: Mapping[str, Any] = field(default_factory=dict)
    template: str | None = None

    def tokenizer(self, name: str, make: str | None = None) -> PreTrainedTokenizerFast:
        return make_tokenizer(
            make or self.make,
            special=self.special,
            added=self.added,
            bos=self.bos,
            eos=self.eos,
            rstrip=self.rstrip,
            template=template_of(self.template or name),
        )


@cache
def template_of(name: str) -> str:
    return (Path(__file__).parent / "templates" / f"{name}.jinja").read_text()


def _with_thinking(two: str) -> str:
    """The conversation `thinking`, of which the template writes content as it is."""
    before, yes, between, no = _cut(two)
    return f"{before}{yes.replace('yes', _THOUGHT[0], 1)}{between}{no.replace('no', _THOUGHT[1], 1)}"


def _cut(two: str) -> tuple[str, str, str, str]:
    first, second = two.index("«"), two.rindex("«")
    middle = two.index("»")
    return two[:first], two[first:middle], two[middle:second], two[second:]


def expected_of(one: str, more: str, system: Expected, **others: Expected) -> dict[str, Expected]:
    """``more`` is what a second turn adds to the sample of the first."""
    found: dict[str, Expected] = {
        "one": one,
        "two": one + more,
        "system": system,
        "thinking": _with_thinking(one + more),
    }
    return found | {key.replace("_", " "): value for key, value in others.items()}
