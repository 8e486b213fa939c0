"""``starts.jsonl``: a line for each time that a run was started or resumed, with what only that process knew."""

from __future__ import annotations

import json
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sharpen.system.files import flush, named_write_errors

PACKAGES = ("sharpen", "torch", "transformers")


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
            # A line that a killed process left unfinished stays one of its own.
            before = self.path.read_bytes() if self.path.exists() else b""
            unfinished = bool(before) and not before.endswith(b"\n")
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(("\n" if unfinished else "") + json.dumps(line) + "\n")
            flush(self.path)
            flush(self.path.parent)

    def read(self) -> list[dict[str, Any]]:
        """The lines, the earliest first; none of a run of an earlier version. One that was cut off is left out."""
        if not self.path.exists():
            return []
        lines = (_parsed(text) for text in self.path.read_bytes().splitlines())
        return [line for line in lines if line is not None]


def _parsed(text: bytes) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    # Whatever a process that was killed, or a person, left there: these lines only tell, and nothing depends on them.
    except ValueError:
        return None
    return line if isinstance(line, dict) and isinstance(line.get("step"), int) else None
