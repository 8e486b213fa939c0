"""Messages as chat templates expect them, and what a row gives a template beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sharpen.types import Message, Row


def normalised(messages: Sequence[Message], where: str) -> list[Message]:
    """The messages as a template reads them. ``where`` names the row in errors."""
    return list(messages)


def given_by(row: Row, where: str) -> Mapping[str, Any]:
    """What a row gives the template beside its messages. ``where`` names the row in errors."""
    return {}
