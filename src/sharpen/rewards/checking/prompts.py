"""Rows → prompts, without a tokenizer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sharpen.data.rows import Rows
from sharpen.types import Prompt, Row


def questions(rows: Rows) -> list[Prompt]:
    """Prompts with the bytes of their text for tokens."""
    return [Prompt(rows.row_id(i), tuple(asked(row).encode()) or (0,), asked(row), row) for i, row in enumerate(rows)]


def asked(row: Row) -> str:
    """The user's last message, from column ``prompt`` or ``messages`` (text or conversation); else empty."""
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
