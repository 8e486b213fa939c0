"""``changes.jsonl``: what of a run was changed while it was stopped, and from which step on that holds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sharpen.errors import CheckpointError
from sharpen.system.files import flush, named_write_errors, write_text


class Changes:
    """A line for each checkpoint that a run went on from with changes: its ``step``, and what was ``changed``.

    The steps after that one are done with the changes.
    """

    def __init__(self, run: Path) -> None:
        self.path = run / "changes.jsonl"

    def at(self, step: int) -> list[dict[str, Any]]:
        """What was changed at the checkpoint of this step. Raises CheckpointError if the file cannot be read."""
        return [change for line in self._lines() if line["step"] == step for change in line["changed"]]

    def all(self) -> list[tuple[int, list[dict[str, Any]]]]:
        """The step of each such checkpoint, and what was changed. Raises CheckpointError as `at` does."""
        return [(line["step"], line["changed"]) for line in self._lines()]

    def write(self, step: int, changed: Sequence[dict[str, Any]]) -> None:
        """Record that the run goes on from ``step`` with these changes; those of later steps never came to be.

        On disk when it returns. Raises DiskError if it cannot be written.
        """
        before = self._lines()
        lines = [line for line in before if line["step"] < step]
        if changed:
            lines.append({"step": step, "changed": list(changed)})
        if lines == before:
            return
        with named_write_errors(self.path, "the record of changes"):
            if lines:
                write_text(self.path, "".join(json.dumps(line) + "\n" for line in lines))
            else:
                self.path.unlink()
            flush(self.path.parent)

    def _lines(self) -> list[dict[str, Any]]:
        if not self.path.exists():
            return []
        lines = []
        for number, text in enumerate(self.path.read_bytes().splitlines(), 1):
            try:
                line = json.loads(text)
                if type(line["step"]) is not int or not all(isinstance(c["entries"], dict) for c in line["changed"]):
                    raise TypeError("it is not what a run writes")
            except (ValueError, KeyError, TypeError) as error:
                raise CheckpointError(
                    f"{self.path}:{number}: cannot be read: {error!r}; remove the file, and accept the changes again"
                ) from error
            lines.append(line)
        return lines
