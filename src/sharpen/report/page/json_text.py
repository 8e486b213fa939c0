"""JSON for the page: no NaN, short numbers, and nothing that could end the script element it stands in."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Sequence
from typing import Any

Json = dict[str, Any]

DIGITS = 5
"""Significant digits of a number per token."""


def finite(value: float | None) -> float | None:
    """The value, None where it is missing, NaN or infinite: JSON has no such numbers."""
    return None if value is None or not math.isfinite(value) else float(value)


def rounded(values: Sequence[float | None]) -> list[float | None]:
    """The values to `DIGITS` significant digits, None where they are not finite."""
    return [None if value is None or not math.isfinite(value) else float(f"{value:.{DIGITS}g}") for value in values]


def json_text(value: Any) -> str:
    """JSON in ASCII, so that lone surrogates survive; raises ValueError for a number that is not finite."""
    return json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))


def in_script(value: Any) -> str:
    """JSON for a script element: without ``<``, ``>`` and ``&``, no text can end the element or begin a comment."""
    text = json_text(value)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def packed(value: Any) -> str:
    """JSON, compressed, in base64: the alphabet holds nothing that means anything to HTML."""
    return base64.b64encode(gzip.compress(json_text(value).encode("ascii"), compresslevel=6, mtime=0)).decode("ascii")
