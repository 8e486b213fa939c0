"""What a run reads: rows, held-out rows and the reward, checked against each other before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from sharpen.data.chat import TurnEnd
from sharpen.data.chat.template import template_text
from sharpen.data.demonstrations import load_demonstrations
from sharpen.data.formats import user_rows
from sharpen.data.preferences import load_preferences
from sharpen.data.prompt_format import Loaded, PromptFormat
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import Rows
from sharpen.data.settings import DataSettings
from sharpen.data.steps import load_steps
from sharpen.data.tasks import Task
from sharpen.errors import DataError, RecipeError
from sharpen.launch.data_sources import DataSource, combined_reward, errors_of, read_sources
from sharpen.methods import Method
from sharpen.models.ends import end_of_sequence_ids
from sharpen.models.model import Model
from sharpen.models.policy import Policy
from sharpen.models.vocabulary import embedding_rows
from sharpen.recipe.schema import Recipe
from sharpen.rewards.reward import Reward
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
        )


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Rows to measure on, of each source that has any: prompts to answer and score, or, as ``reads`` says, completions
    like those trained on, to compute the loss and the method's figures of."""

    parts: tuple[SourceRows, ...]
    reads: Reads
    reward: Reward | None

    @property
    def name(self) -> str:
        return ", ".join(part.rows.name for part in self.parts)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about how rows were read."""
        return _notes(self.parts)


@dataclass(frozen=True, slots=True)
class Inputs:
    """The rows to train on, of each data source, and, each if there are any, those to measure on, the reward, the
    demonstrations that a reward model's scores are normalised on, and the rows of the method's second source.

    ``shares`` are those of several data sources; None if there is only one.
    """

    sources: tuple[DataSource, ...]
    train: tuple[SourceRows, ...]
    held_out: HeldOut | None
    reward: Reward | None
    demonstrations: SourceRows | None = None
    mixed: SourceRows | None = None
    shares: Mapping[str, float] | None = None

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know about how rows were read."""
        held_out = () if self.held_out is None else self.held_out.parts
        return _notes((*self.train, *held_out, *filter(None, (self.demonstrations, self.mixed))))


def refuse_missing(recipe: Recipe) -> None:
    """Raises RecipeError if the recipe was made with Python objects that are not given now."""
    if places := ", ".join(f"`{place}`" for place in recipe.missing()):
        raise RecipeError(f"this run was given {places} in Python; resume it there, with the same objects")


def read_inputs(recipe: Recipe, *, each_row: bool = True) -> Inputs:
    """Read the rows and resolve the reward of a recipe. ``each_row``: see that the reward can score every row.

    Raises:
        SharpenError: something is missing, malformed, or does not fit the rest.
    """
    method, data = recipe.method, recipe.data
    refuse_missing(recipe)
    _check_template(data)
    sources = read_sources(recipe)
    train = tuple(_rows_of(source, lambda one: _train_rows(one, method)) for source in sources)
    reward = combined_reward(sources)
    held_out_parts = _held_out_parts(sources, method, _measured_on(method, reward))
    demonstrations = _demonstrations(sources, data, method)
    held_out = None
    if recipe.evaluation.every and held_out_parts:
        held_out = _held_out(method, held_out_parts, reward)
    for source in sources:
        with errors_of(source.name):
            if method.needs_steps and (source.reward is None or not source.reward.gives_steps):
                raise RecipeError(
                    f"method {method.name} with these settings needs a reward for every step of a completion, and this "
                    "reward gives none: use reward `steps` or `process_reward_model`"
                )
    if reward is not None and (method.needs_reward or method.source().reads == "prompts"):
        _check_columns(reward, [part for part in train if reward.scores_source(part.source)], each_row=each_row)
    if held_out is not None:
        _check_reward(held_out, each_row=each_row)
    shares = {name: source.share for name, source in data.sources.items()} or None
    return Inputs(sources, train, held_out, reward, demonstrations, _mixed_rows(data, method), shares)


def read_held_out(recipe: Recipe) -> HeldOut:
    """Read the held-out rows of a recipe, even if its run never measures, and none of those it trains on.

    Raises:
        SharpenError: something is missing, malformed, or does not fit the rest.
    """
    _check_template(recipe.data)
    sources = read_sources(recipe)
    reward = combined_reward(sources)
    parts = _held_out_parts(sources, recipe.method, _measured_on(recipe.method, reward))
    if not parts:
        raise DataError(f"there are no held-out rows to measure on: give {recipe.data.held_out_setting}")
    held_out = _held_out(recipe.method, parts, reward)
    _check_reward(held_out, each_row=True)
    return held_out


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


def _notes(parts: Sequence[SourceRows]) -> tuple[str, ...]:
    """One line for each file of which there is something to say."""
    return tuple(dict.fromkeys(f"{p.rows.name}: {'; '.join(p.rows.notes)}" for p in parts if p.rows.notes))


def _check_template(data: DataSettings) -> None:
    if data.chat_template is not None:
        template_text(data.chat_template)


def _named(prompt: Prompt, source: str) -> Prompt:
    return replace(prompt, source=source) if source else prompt


def _reported(loaded: Loaded[Item], rows: Rows, say: Say) -> tuple[Item, ...]:
    if loaded.dropped:
        say(f"{rows.name}: left out {loaded.dropped} of {len(rows)} rows, too long for the context")
    if loaded.warning is not None:
        say(f"{rows.name}: {loaded.warning}")
    return loaded.items


def _rows_of(source: DataSource, read: Callable[[DataSource], Rows]) -> SourceRows:
    with errors_of(source.name):
        return SourceRows(source.name, source.named(read(source)), source.data)


def _train_rows(source: DataSource, method: Method) -> Rows:
    if source.task is not None:
        return _train_rows_of(source.task, method)
    return user_rows(source.data.train, source.data.columns, method.source().reads)


def _train_rows_of(task: Task, method: Method) -> Rows:
    reads = method.source().reads
    parts: dict[Reads, tuple[str, Callable[[], Rows | None]]] = {
        "prompts": ("prompts", task.train_rows),
        "demonstrations": ("demonstrations", task.demonstrations),
        "preferences": ("ranked completions", task.preferences),
        "steps": ("completions with marked steps", task.step_labels),
    }
    noun, rows_of = parts[reads]
    rows = rows_of()
    if rows is None:
        raise DataError(f"task {task.name} has no {noun}, which method {method.name} learns from")
    return rows


def _measured_on(method: Method, reward: Reward | None) -> Reads:
    """What held-out rows hold. A policy can be measured by its answers if there is a reward to score them."""
    reads = method.source().reads
    return "prompts" if method.makes_a_policy and reward is not None else reads


def _held_out_parts(sources: tuple[DataSource, ...], method: Method, reads: Reads) -> tuple[SourceRows, ...]:
    parts = []
    for source in sources:
        with errors_of(source.name):
            rows = _held_out_rows(source, method, reads)
        if rows is not None:
            parts.append(SourceRows(source.name, source.named(rows), source.data))
    return tuple(parts)


def _held_out_rows(source: DataSource, method: Method, reads: Reads) -> Rows | None:
    task, held_out = source.task, source.data.held_out
    if task is None:
        return None if held_out is None else user_rows(held_out, source.data.columns, reads)
    if method.makes_a_policy:
        return task.held_out_rows()
    preferences = method.source().reads == "preferences"
    return task.held_out_preferences() if preferences else task.held_out_step_labels()


def _demonstrations(sources: tuple[DataSource, ...], data: DataSettings, method: Method) -> SourceRows | None:
    rows = None
    if data.demonstrations is not None:
        rows = user_rows(data.demonstrations, {}, "demonstrations")
    elif (task := sources[0].task) is not None and not data.sources and not method.makes_a_policy:
        rows = task.demonstrations()
    return None if rows is None else SourceRows("", rows, data)


def _mixed_rows(data: DataSettings, method: Method) -> SourceRows | None:
    mixed = method.mixed()
    if mixed is None:
        return None
    if mixed.method.source().reads == "prompts":
        raise RecipeError(f"the second source of method {method.name} must read completions, not prompts")
    trained = method.objectives()[0].model
    if [objective.model for objective in mixed.method.objectives()] != [trained]:
        raise RecipeError(
            f"the second source of method {method.name} must train the {trained} alone, which {mixed.method.name} "
            "does not"
        )
    if data.mixed is None:
        raise RecipeError(f"method {method.name} has a second source: give its rows as data.mixed")
    return SourceRows("", user_rows(data.mixed, {}, mixed.method.source().reads), data)


def _held_out(method: Method, parts: tuple[SourceRows, ...], reward: Reward | None) -> HeldOut:
    reads = _measured_on(method, reward)
    for part in parts:
        if reads == "prompts" and (reward is None or not reward.scores_source(part.source)):
            with errors_of(part.source):
                raise RecipeError("held-out answers are measured by a reward that says which are right: give `reward`")
    return HeldOut(parts, reads, reward)


def _check_reward(held_out: HeldOut, *, each_row: bool) -> None:
    if held_out.reads == "prompts" and held_out.reward is not None:
        _check_columns(held_out.reward, held_out.parts, each_row=each_row)


def _check_columns(reward: Reward, parts: Sequence[SourceRows], *, each_row: bool) -> None:
    for part in parts:
        of_part = reward.of_source(part.source)
        of_part.check_columns(part.rows.columns, part.rows.name)
        for index, row in enumerate(part.rows if each_row else ()):
            of_part.check_row(row, part.rows.where(index))
