"""Values as messages show them: whatever they are, and however large."""

from __future__ import annotations

SHOWN = 200
"""Letters of a value that a message shows."""


def shown(value: object, limit: int = SHOWN) -> str:
    """`repr` of any object, cut after ``limit`` letters; the name of its class if it has none."""
    try:
        text = repr(value)
    # A user's class may raise anything here, and Python does for integers of more than 4,300 digits.
    except Exception:  # noqa: BLE001
        return f"<{type(value).__name__}>"
    return cut(text, limit)


def cut(text: str, limit: int) -> str:
    """A text of at most ``limit`` letters, which says how many it left out."""
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text) - limit:,} more letters)"
