"""``starts.jsonl``: a line for each time that a run was started or resumed, with what only that process knew."""

from __future__ import annotations

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sharpen.system.files import flush, named_write_errors

PACKAGES = ("sharpen", "torch", "transformers")
MOST_BYTES = 2**22
"""Thousands of starts."""


class Starts:
    """Readers learn from it what was trained and on what, without loading a model or a user's code.

    A resume compares nothing of it.
    """

    def __init__(self, run: Path) -> None:
        self.path = run / "starts.jsonl"

    def write(self, step: int, **told: Any) -> None:
        """Record that the run goes on from ``step`` now, and the versions that it does so with.

        On disk when it returns. Raises DiskError if it cannot be written.
        """
        line = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "step": step,
            **told,
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        }
        with named_write_errors(self.path, "the record of starts"):
            with self.path.open("a+b") as stream:
                # A line that a killed process left unfinished stays one of its own.
                if stream.tell() and os.pread(stream.fileno(), 1, stream.tell() - 1) != b"\n":
                    stream.write(b"\n")
                stream.write(json.dumps(line).encode() + b"\n")
            flush(self.path)
            flush(self.path.parent)

    def read(self) -> list[dict[str, Any]]:
        """The lines, the earliest first; none of a run of an earlier version. What is no whole line is left out.

        Of a file that something else has made longer than ``MOST_BYTES``, only the first lines.
        """
        if not self.path.exists():
            return []
        with self.path.open("rb") as stream:
            lines = (_parsed(text) for text in stream.read(MOST_BYTES).split(b"\n"))
            return [line for line in lines if line is not None]


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    # Whatever a process that was killed, or a person, left there: these lines only tell, and nothing depends on them.
    except (ValueError, RecursionError):
        return None
    types = {"time": str, "step": int, "versions": dict}
    whole = isinstance(line, dict) and all(isinstance(line.get(key), kind) for key, kind in types.items())
    return line if whole else None
