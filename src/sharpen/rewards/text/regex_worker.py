"""Worker process of `sharpen.rewards.text.regex`, run as a script.

Reads JSON lines ``{"mode", "pattern", "text", …}`` from standard input and writes a line
``{"matches": bool}`` for each. ``mode`` is ``fullmatch`` or ``search``.
"""

from __future__ import annotations

import re
from typing import Any

from sharpen.system.worker_program import Answer, serve


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    match = re.fullmatch if question["mode"] == "fullmatch" else re.search
    return {"matches": match(question["pattern"], question["text"]) is not None}


def _prepared() -> Answer:
    if not _answer({"mode": "search", "pattern": "a", "text": "a"})["matches"]:
        raise RuntimeError("a pattern does not match its own text")
    return _answer


if __name__ == "__main__":
    serve(_prepared)
