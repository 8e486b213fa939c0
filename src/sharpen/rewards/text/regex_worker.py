"""Worker process of `sharpen.rewards.text.regex`, run as a script.

Reads one JSON line ``{"mode", "pattern", "text", "timeout_s"}`` after another from standard input and writes one line
``{"matches": bool}`` each. ``mode`` is ``fullmatch`` or ``search``.
"""

from __future__ import annotations

import re
from typing import Any

from sharpen.system.worker_program import serve


def _answer(question: dict[str, Any]) -> dict[str, Any]:
    match = re.fullmatch if question["mode"] == "fullmatch" else re.search
    return {"matches": match(question["pattern"], question["text"]) is not None}


if __name__ == "__main__":
    serve(lambda: _answer)
