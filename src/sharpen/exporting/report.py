"""What an export wrote, what was checked of it, and what could not be."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sharpen.errors import ModelError


@dataclass(slots=True)
class Checks:
    """Findings about a model that is being exported, in the order in which they were made."""

    checked: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)

    def hold(self, condition: bool, what: str) -> None:
        """Note a check that holds. Raises ModelError if it does not: then nothing is exported."""
        if not condition:
            raise ModelError(f"the export differs from the model, so nothing was written: {what}")
        self.checked.append(what)


@dataclass(frozen=True, slots=True)
class Export:
    """What `sharpen.export` wrote to ``path``; ``checked`` and ``not_checked`` are sentences for people."""

    path: Path
    checked: tuple[str, ...] = ()
    not_checked: tuple[str, ...] = ()

    @property
    def lines(self) -> tuple[str, ...]:
        return (*(f"checked: {line}" for line in self.checked), *(f"not checked: {line}" for line in self.not_checked))
