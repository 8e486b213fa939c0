"""Text that a model, a reward or a data set wrote, made harmless for a terminal."""

from __future__ import annotations

import re

_HARMFUL = re.compile(
    # Controls but tab and line feed, which move the cursor, change colours or write to the clipboard; and the marks
    # that change the direction of the text around them, or end a line, where it is shown.
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]|[\ud800-\udfff]"
)


def printable(text: str) -> str:
    """The text with everything that a terminal would obey, and what has no form in UTF-8, written as an escape.

    Line feeds and tabs stay. A carriage return becomes ``\\r``, an escape character ``\\x1b``.
    """
    return _HARMFUL.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)
