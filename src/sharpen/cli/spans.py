"""Pieces of text in colour: special tokens, and what is trained on."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from sharpen.launch.spans import Span
from sharpen.system.printable import printable


def shown(spans: Sequence[Span]) -> Text:
    """The spans as text; runs of trained ones in brackets and green, special tokens in magenta."""
    text = Text()
    inside = False
    for span in spans:
        if span.trained != inside:
            text.append("⟦" if span.trained else "⟧", style="bold green")
            inside = span.trained
        style = "magenta" if span.special else "green" if span.trained else ""
        text.append(printable(span.text), style=style)
    if inside:
        text.append("⟧", style="bold green")
    return text
