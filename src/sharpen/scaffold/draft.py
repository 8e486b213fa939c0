"""A recipe as it is put together: settings with their reasons, in order."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, TypeAlias


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting by its dotted name, its value and why it has it."""

    name: str
    value: Any
    why: str = ""


@dataclass(frozen=True, slots=True)
class Note:
    """A comment before the setting that follows, within the section ``inside``. Lines of a ``verbatim`` one stay."""

    text: str
    inside: str = ""
    verbatim: bool = False


Entry: TypeAlias = Setting | Note


@dataclass(slots=True)
class Draft:
    """A recipe's header and entries, in the order of the file. ``unsure`` are its doubts, which it also has as notes.

    ``missing`` is what a person has to add before it runs.
    """

    header: tuple[str, ...] = ()
    entries: list[Entry] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)
    missing: str | None = None

    def set(self, name: str, value: Any, why: str = "") -> None:
        self.entries.append(Setting(name, value, why))

    def note(self, text: str, inside: str = "", *, verbatim: bool = False) -> None:
        self.entries.append(Note(text, inside, verbatim))

    def doubt(self, text: str, inside: str = "") -> None:
        self.unsure.append(text)
        self.note(f"unsure: {text}", inside)

    def value(self, name: str) -> Any:
        """The value of a setting; None if the draft does not have it."""
        return next((e.value for e in self.entries if isinstance(e, Setting) and e.name == name), None)
