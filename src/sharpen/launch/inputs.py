"""What a run reads: rows, held-out rows and the reward, checked against each other before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sharpen.data.chat.template import template_text
from sharpen.data.formats import user_rows
from sharpen.data.rows import Rows
from sharpen.data.settings import DataSettings
from sharpen.data.tasks import Task
from sharpen.errors import DataError, RecipeError
from sharpen.launch.data_sources import DataSource, combined_reward, errors_of, read_sources
from sharpen.launch.source_rows import SourceRows
from sharpen.methods import Method
from sharpen.recipe.schema import Recipe
from sharpen.rewards.reward import Reward
from sharpen.types import Reads


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
    """Read the rows and resolve the reward of a recipe. ``each_row``: see that the reward can score every row; of very
    many, those that are read before the first step.

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


def _notes(parts: Sequence[SourceRows]) -> tuple[str, ...]:
    """One line for each file of which there is something to say."""
    return tuple(dict.fromkeys(f"{p.rows.name}: {'; '.join(p.rows.notes)}" for p in parts if p.rows.notes))


def _check_template(data: DataSettings) -> None:
    if data.chat_template is not None:
        template_text(data.chat_template)


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
        if each_row:
            rows = part.read_first
            for index, row in enumerate(rows):
                of_part.check_row(row, rows.where(index))
