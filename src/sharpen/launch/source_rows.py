"""Rows of a data source as a model sees them: prompts, or completions to learn from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

from sharpen.data.chat import TurnEnd
from sharpen.data.demonstrations import load_demonstrations
from sharpen.data.preferences import load_preferences
from sharpen.data.prompt_format import Loaded, PromptFormat
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import Rows
from sharpen.data.settings import DataSettings
from sharpen.data.steps import load_steps
from sharpen.errors import RecipeError
from sharpen.models.ends import end_of_sequence_ids
from sharpen.models.model import Model
from sharpen.models.policy import Policy
from sharpen.models.vocabulary import embedding_rows
from sharpen.rollout.engine import Engine
from sharpen.types import Group, Prompt, Reads

Say = Callable[[str], None]
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class SourceRows:
    """Rows of a data source, and the settings by which they are read. ``source`` is empty if it is the only one."""

    source: str
    rows: Rows
    data: DataSettings

    def prompts(self, model: Model, engine: Engine, *, max_new_tokens: int, say: Say) -> tuple[Prompt, ...]:
        """`prompts_of` these rows, with the name of their source."""
        prompts = prompts_of(self.rows, self._format(model, say), engine, max_new_tokens=max_new_tokens, say=say)
        return tuple(_named(prompt, self.source) for prompt in prompts)

    def groups(self, reads: Reads, model: Model, say: Say) -> tuple[Group, ...]:
        """`groups_of` these rows, with the name of their source."""
        separator = self.data.step_separator
        groups = groups_of(reads, self.rows, self._format(model, say), step_separator=separator, say=say)
        return tuple(replace(group, prompt=_named(group.prompt, self.source)) for group in groups)

    def _format(self, model: Model, say: Say) -> PromptFormat:
        return PromptFormat.of(
            self.data,
            model.tokenizer,
            model.context_length,
            eos_ids=declared_ends(model),
            on_chat=ends_turns(model, say),
            embedding_rows=embedding_rows(model.model),
            on_plain=lambda text: say(f"{self.rows.name}: {text}"),
        )


def prompts_of(
    rows: Rows, format: PromptFormat, engine: Engine, *, max_new_tokens: int, say: Say
) -> tuple[Prompt, ...]:
    """The prompts of rows; ``say`` is told how many are left out as too long, if the settings allow that.

    Raises RecipeError for a prompt that fits into the model's context and not into the engine's memory.
    """
    prompts = _reported(load_prompts(rows, format, max_new_tokens=max_new_tokens), rows, say)
    for prompt in prompts:
        if (tokens := len(prompt.token_ids)) + max_new_tokens > engine.context_length:
            index = next(i for i in range(len(rows)) if rows.row_id(i) == prompt.id)
            raise RecipeError(
                f"{rows.where(index)}: its prompt has {tokens} tokens and rollout.max_new_tokens is {max_new_tokens}, "
                f"together more than the {engine.context_length} tokens that the engine samples "
                f"{getattr(engine, 'why_context', 'at most: lower rollout.max_new_tokens')}, or make the prompt shorter"
            )
    return prompts


def groups_of(
    reads: Reads, rows: Rows, format: PromptFormat, *, step_separator: str | None, say: Say
) -> tuple[Group, ...]:
    """The completions that rows hold; ``say`` is told how many are left out as too long, if the settings allow that."""
    return _reported(completions_of(reads, rows, format, step_separator), rows, say)


def completions_of(reads: Reads, rows: Rows, format: PromptFormat, step_separator: str | None) -> Loaded[Group]:
    """The completions that rows hold, as what a method ``reads``."""
    if reads == "preferences":
        return load_preferences(rows, format)
    if reads == "steps":
        return load_steps(rows, format, separator=step_separator)
    return load_demonstrations(rows, format)


def declared_ends(model: Model) -> frozenset[int]:
    """The ends of sequence that a model declares."""
    if isinstance(model, Policy):
        return model.eos_ids
    return end_of_sequence_ids(getattr(model.model, "generation_config", None), model.config, model.tokenizer)


def ends_turns(model: Model, say: Say) -> Callable[[TurnEnd], None]:
    """Lets a policy stop where chats end the assistant's turn; ``say`` is told what is doubtful about that end."""

    def learn(end: TurnEnd) -> None:
        if isinstance(model, Policy):
            model.end_at(end.token_ids)
        if end.warning is not None:
            say(end.warning)

    return learn


def _named(prompt: Prompt, source: str) -> Prompt:
    return replace(prompt, source=source) if source else prompt


def _reported(loaded: Loaded[Item], rows: Rows, say: Say) -> tuple[Item, ...]:
    if loaded.dropped:
        say(f"{rows.name}: left out {loaded.dropped} of {len(rows)} rows, too long for the context")
    if loaded.warning is not None:
        say(f"{rows.name}: {loaded.warning}")
    return loaded.items
