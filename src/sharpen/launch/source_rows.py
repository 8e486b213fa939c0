"""Rows of a data source as a model sees them: prompts, or completions to learn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sharpen.data.chat import TurnEnd
from sharpen.data.columns import ITEM_COLUMNS
from sharpen.data.demonstrations import load_demonstrations
from sharpen.data.items import DrawnItems, Item, Items, MadeItems
from sharpen.data.large import is_large, read_first
from sharpen.data.preferences import load_preferences
from sharpen.data.prompt_format import Loaded, PromptFormat
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import Rows
from sharpen.data.settings import DataSettings
from sharpen.data.steps import load_steps
from sharpen.errors import DrawnRowError, RecipeError, SharpenError
from sharpen.models.ends import end_of_sequence_ids
from sharpen.models.model import Model
from sharpen.models.policy import Policy
from sharpen.models.vocabulary import embedding_rows
from sharpen.rewards.reward import Reward
from sharpen.rollout.engine import Engine
from sharpen.types import Group, Prompt, Reads

Say = Callable[[str], None]


@dataclass(frozen=True)
class SourceRows:
    """Rows of a data source, and the settings by which they are read. ``source`` is empty if it is the only one."""

    source: str
    rows: Rows
    data: DataSettings

    @cached_property
    def read_first(self) -> Rows:
        """The rows that are read before the first step: all, unless they are very many."""
        return read_first(self.rows, ITEM_COLUMNS)

    def prompts(
        self, model: Model, engine: Engine, *, max_new_tokens: int, say: Say, reward: Reward | None = None
    ) -> Items[Prompt]:
        """`prompts_of` these rows, with the name of their source; very many are made when they are drawn.

        Then ``reward`` must be able to score them.
        """

        def make(rows: Rows, format: PromptFormat) -> Loaded[Prompt]:
            return load_prompts_for(engine, rows, format, max_new_tokens=max_new_tokens)

        return self._items(make, model, say, reward)

    def groups(self, reads: Reads, model: Model, say: Say) -> Items[Group]:
        """`groups_of` these rows, with the name of their source; very many are made when they are drawn."""

        def make(rows: Rows, format: PromptFormat) -> Loaded[Group]:
            return completions_of(reads, rows, format, self.data.step_separator)

        return self._items(make, model, say)

    def _items(
        self,
        make: Callable[[Rows, PromptFormat], Loaded[Item]],
        model: Model,
        say: Say,
        reward: Reward | None = None,
    ) -> Items[Item]:
        format = PromptFormat.of(
            self.data,
            model.tokenizer,
            model.context_length,
            eos_ids=declared_ends(model),
            on_chat=ends_turns(model, say),
            embedding_rows=embedding_rows(model.model),
            on_plain=lambda text: say(f"{self.rows.name}: {text}"),
        )
        read = self.read_first
        made = tuple(_named(item, self.source) for item in _reported(make(read, format), read, say))
        if not is_large(len(self.rows)):
            return MadeItems(made)
        say(
            f"{self.rows.name}: {len(read):,} of its {len(self.rows):,} rows are checked now, the others when they are "
            "drawn; `sharpen data check RECIPE` checks every row"
        )
        alone = replace(format, on_chat=None, on_plain=None, alone=True)

        def drawn(numbers: Sequence[int]) -> list[Item | None]:
            try:
                rows = self.rows.part(numbers)
                if reward is not None:
                    for index, row in enumerate(rows):
                        reward.check_row(row, rows.where(index))
                found = make(rows, alone).by_row()
            except SharpenError as error:
                raise DrawnRowError(f"{error}. `sharpen data check RECIPE` finds all rows like it") from error
            return [None if item is None else _named(item, self.source) for item in found]

        return DrawnItems(self.rows, drawn, made, self.source)


def prompts_of(
    rows: Rows, format: PromptFormat, engine: Engine, *, max_new_tokens: int, say: Say
) -> tuple[Prompt, ...]:
    """The prompts of rows; ``say`` is told how many are left out as too long, if the settings allow that.

    Raises RecipeError for a prompt that fits into the model's context and not into the engine's memory.
    """
    return _reported(load_prompts_for(engine, rows, format, max_new_tokens=max_new_tokens), rows, say)


def load_prompts_for(engine: Engine, rows: Rows, format: PromptFormat, *, max_new_tokens: int) -> Loaded[Prompt]:
    """`load_prompts`, with a RecipeError for a prompt that fits into the model's context and not into the engine's
    memory."""
    loaded = load_prompts(rows, format, max_new_tokens=max_new_tokens)
    for index, prompt in enumerate(loaded.by_row()):
        if prompt is not None and (tokens := len(prompt.token_ids)) + max_new_tokens > engine.context_length:
            raise RecipeError(
                f"{rows.where(index)}: its prompt has {tokens} tokens and rollout.max_new_tokens is {max_new_tokens}, "
                f"together more than the {engine.context_length} tokens that the engine samples "
                f"{getattr(engine, 'why_context', 'at most: lower rollout.max_new_tokens')}, or make the prompt shorter"
            )
    return loaded


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


def _named(item: Item, source: str) -> Item:
    if not source:
        return item
    if isinstance(item, Prompt):
        return replace(item, source=source)
    return replace(item, prompt=replace(item.prompt, source=source))


def _reported(loaded: Loaded[Item], rows: Rows, say: Say) -> tuple[Item, ...]:
    if loaded.dropped:
        say(f"{rows.name}: left out {loaded.dropped} of {len(rows)} rows, too long for the context")
    if loaded.warning is not None:
        say(f"{rows.name}: {loaded.warning}")
    return loaded.items
