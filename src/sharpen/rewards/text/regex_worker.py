"""Worker process of `sharpen.rewards.text.regex`, run as a script.

Reads JSON lines ``{"mode", "pattern", "text", "timeout_s"}`` from standard input and writes a line
``{"matches": bool}`` for each. ``mode`` is ``fullmatch`` or ``search``.
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
