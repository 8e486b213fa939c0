"""How many tokens the prompts and completions of rows are, as a run would read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sharpen.data.prompt_format import PromptFormat
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import Rows
from sharpen.launch.source_rows import groups_of
from sharpen.scaffold.model_facts import BYTES_PER_TOKEN, ModelFacts
from sharpen.types import Reads

NO_LIMIT = 2**31


@dataclass(frozen=True, slots=True)
class Lengths:
    """In tokens: each row's prompt, and its longest completion where rows are trained on their completions."""

    prompts: tuple[int, ...]
    completions: tuple[int, ...] = ()

    def __add__(self, other: Lengths) -> Lengths:
        return Lengths(self.prompts + other.prompts, self.completions + other.completions)

    @property
    def totals(self) -> tuple[int, ...]:
        return tuple(p + c for p, c in zip(self.prompts, self.completions, strict=True))


def measure(
    rows: Rows, reads: Reads, model: ModelFacts, *, chat: bool, system: str | None, step_separator: str | None
) -> Lengths:
    """The lengths of rows, read as a run reads them.

    Raises:
        DataError: a run could not read a row.
    """
    format = PromptFormat(model.tokenizer, NO_LIMIT, chat=chat, system=system)
    if reads == "prompts":
        items = load_prompts(rows, format, max_new_tokens=0).items
        return Lengths(tuple(_scaled(len(item.token_ids), model) for item in items))
    groups = groups_of(reads, rows, format, step_separator=step_separator, say=lambda text: None)
    longest = (
        max(len(s.prefix_ids) + len(s.token_ids) for t in group.trajectories for s in t.samples)
        - len(group.prompt.token_ids)
        for group in groups
    )
    return Lengths(
        tuple(_scaled(len(group.prompt.token_ids), model) for group in groups),
        tuple(_scaled(length, model) for length in longest),
    )


def said(value: Any) -> str:
    """The text of a completion, which may be messages or a list of programs."""
    if isinstance(value, list | tuple):
        return (
            "\n".join(said(part) for part in value[:1] if part)
            if not _messages(value)
            else "\n".join(str(message.get("content") or "") for message in value)
        )
    return str(value)


def _messages(value: Any) -> bool:
    return all(isinstance(part, Mapping) for part in value)


def _scaled(length: int, model: ModelFacts) -> int:
    return length if model.at_hand else -(-length // BYTES_PER_TOKEN)
