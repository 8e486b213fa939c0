"""Rows → what is asked, as far as that needs no tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sharpen.data.rows import Rows
from sharpen.types import Prompt, Row


def questions(rows: Rows) -> list[Prompt]:
    """Prompts of which only the text is known; its bytes stand for the tokens."""
    return [Prompt(rows.row_id(i), tuple(asked(row).encode()) or (0,), asked(row), row) for i, row in enumerate(rows)]


def asked(row: Row) -> str:
    """What the user says last: column ``prompt`` or ``messages``, a text or a conversation; else nothing."""
    value = row.get("prompt", row.get("messages"))
    if isinstance(value, str):
        return value
    said = [_content(message) for message in _messages(value) if message.get("role") == "user"]
    return said[-1] if said else ""


def _messages(value: Any) -> list[Mapping[str, Any]]:
    if not isinstance(value, Sequence):
        return []
    return [message for message in value if isinstance(message, Mapping)]


def _content(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else ""
