"""What was found in the rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from sharpen.scaffold.answers import Answers

Kind = Literal["answers", "words", "tests", "demonstrations", "preferences", "marked steps", "prompts", "task"]

SAID: Mapping[Kind, str] = {
    "answers": "prompts with answers",
    "words": "prompts with words that the completion must contain",
    "tests": "prompts with tests of a program",
    "demonstrations": "prompts with completions to imitate",
    "preferences": "prompts with better and worse completions",
    "marked steps": "completions with marked steps",
    "prompts": "prompts alone",
    "task": "problems with a verifier",
}


@dataclass(frozen=True, slots=True)
class Findings:
    """What kind of rows these are, and what each column is used for.

    ``uses`` has the columns that training reads. ``asked`` is the column of prompts; it is None if they are part of the
    completions. ``conversational`` rows are messages, of which some begin with a system message if ``has_system``.
    ``shown`` is the column of completions that tell how long one is. ``code`` is the reward for programs, as a recipe
    has it. ``renames`` are columns that recipes read under other names, from their name to the one that is needed.
    ``columns`` is what `data.columns` has to be. ``unsure`` are other readings of the rows.
    """

    kind: Kind
    uses: Mapping[str, str]
    asked: str | None
    conversational: bool
    has_system: bool = False
    shown: str | None = None
    answers: Answers | None = None
    words: str | None = None
    code: Mapping[str, Any] | None = None
    step_separator: str | None = None
    renames: Mapping[str, str] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    unsure: tuple[str, ...] = ()
