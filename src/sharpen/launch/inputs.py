"""What a run reads: rows, held-out rows and the reward, checked against each other before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from sharpen.data.demonstrations import load_demonstrations
from sharpen.data.loading import Loaded
from sharpen.data.preferences import load_preferences
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import Rows, read_rows
from sharpen.data.settings import DataSettings
from sharpen.data.steps import load_steps
from sharpen.data.tasks import Task, resolve_task
from sharpen.errors import DataError, RecipeError
from sharpen.in_memory import in_memory
from sharpen.recipe.schema import Recipe
from sharpen.rewards.registry import resolve_reward
from sharpen.rewards.reward import Reward
from sharpen.rewards.task import TaskReward
from sharpen.rollout.sources import Reads
from sharpen.types import Group, Prompt

Say = Callable[[str], None]
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Given:
    """Python objects that take the place of what a recipe names: rows and a reward."""

    train: Any = None
    held_out: Any = None
    demonstrations: Any = None
    reward: Any = None

    def refuse_missing(self, recipe: Recipe) -> None:
        """Raises RecipeError if the recipe was made with Python objects that are not there."""
        settings = {
            **{f"data.{key}": getattr(recipe.data, key) for key in ("train", "held_out", "demonstrations")},
            "reward": recipe.reward,
        }
        missing = [
            place
            for name, setting in settings.items()
            if getattr(self, name.removeprefix("data.")) is None
            for place in in_memory(setting, name)
        ]
        if missing:
            raise RecipeError(
                f"this run was given {', '.join(f'`{place}`' for place in missing)} in Python; resume it there, with "
                "the same objects"
            )


NOTHING_GIVEN = Given()


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Rows to measure on.

    They hold what ``reads`` says: prompts that are answered and rewarded, or completions like those trained on, of
    which the loss and the method's own figures are taken.
    """

    rows: Rows
    reads: Reads
    reward: Reward | None


@dataclass(frozen=True, slots=True)
class Inputs:
    """Rows to train on, rows to measure on where that is wanted, and the reward where there is one.

    ``demonstrations`` are what a reward model's scores are centred on, where there are some.
    """

    rows: Rows
    held_out: HeldOut | None
    reward: Reward | None
    demonstrations: Rows | None = None


def read_inputs(recipe: Recipe, given: Given) -> Inputs:
    """Read the rows and resolve the reward of a recipe.

    Raises:
        SharpenError: something is missing, malformed, or does not fit the rest.
    """
    given.refuse_missing(recipe)
    task = _task(recipe)
    rows = _train_rows(recipe, given, task)
    held_out_rows = _held_out_rows(recipe, given, task)
    demonstrations = _demonstrations(recipe, given, task)
    reward = _reward(recipe, given, task)
    held_out = None
    if recipe.evaluation.every and held_out_rows is not None:
        held_out = _held_out(recipe, held_out_rows, reward)
    if recipe.method.needs_steps and (reward is None or not reward.gives_steps):
        raise RecipeError(
            f"method {recipe.method.name} with these settings needs a reward for every step of a completion, and this "
            "reward gives none: use reward `steps` or `process_reward_model`"
        )
    if reward is not None and recipe.method.needs_reward:
        reward.check_columns(rows.columns, rows.name)
    if held_out is not None:
        _check_reward(held_out)
    return Inputs(rows, held_out, reward, demonstrations)


def read_held_out(recipe: Recipe, given: Given = NOTHING_GIVEN) -> HeldOut:
    """Read what a run of this recipe is measured on, however seldom that is, and none of what it is trained on.

    Raises:
        SharpenError: something is missing, malformed, or does not fit the rest.
    """
    task = _task(recipe)
    rows = _held_out_rows(recipe, given, task)
    if rows is None:
        raise DataError("there are no held-out rows to measure on: give data.held_out")
    held_out = _held_out(recipe, rows, _reward(recipe, given, task))
    _check_reward(held_out)
    return held_out


def task_reward(task: Task, spec: Any) -> Reward:
    """The task's own verifier, or what ``spec`` says, where the name ``task`` stands for that verifier."""
    return TaskReward(task) if spec is None else resolve_reward(spec, task)


def prompts_of(
    rows: Rows,
    tokenizer: PreTrainedTokenizerBase,
    data: DataSettings,
    *,
    max_new_tokens: int,
    context_length: int,
    say: Say,
) -> tuple[Prompt, ...]:
    """The prompts of rows, those too long left out, and said, where the settings allow it."""
    loaded = load_prompts(
        rows,
        tokenizer,
        max_new_tokens=max_new_tokens,
        context_length=context_length,
        chat=data.chat,
        system=data.system,
        chat_template_kwargs=data.chat_template_kwargs,
        overlong=data.overlong,
    )
    return _reported(loaded, rows, say)


def groups_of(
    reads: Reads, rows: Rows, tokenizer: PreTrainedTokenizerBase, data: DataSettings, *, context_length: int, say: Say
) -> tuple[Group, ...]:
    """The completions that rows hold, those too long left out, and said, where the settings allow it."""
    settings: dict[str, Any] = {
        "context_length": context_length,
        "chat": data.chat,
        "system": data.system,
        "chat_template_kwargs": data.chat_template_kwargs,
        "overlong": data.overlong,
    }
    if reads == "preferences":
        return _reported(load_preferences(rows, tokenizer, **settings), rows, say)
    if reads == "steps":
        return _reported(load_steps(rows, tokenizer, separator=data.step_separator, **settings), rows, say)
    return _reported(load_demonstrations(rows, tokenizer, **settings), rows, say)


def _reported(loaded: Loaded[Item], rows: Rows, say: Say) -> tuple[Item, ...]:
    if loaded.dropped:
        say(f"{rows.name}: left out {loaded.dropped} of {len(rows)} rows, too long for the context")
    return loaded.items


def _task(recipe: Recipe) -> Task | None:
    return None if recipe.data.task is None else resolve_task(recipe.data.task)


def _train_rows(recipe: Recipe, given: Given, task: Task | None) -> Rows:
    if task is None:
        return read_rows(_one_of(given.train, recipe.data.train))
    reads = recipe.method.source().reads
    parts: dict[Reads, Callable[[], Rows | None]] = {
        "prompts": task.train_rows,
        "demonstrations": task.demonstrations,
        "preferences": task.preferences,
        "steps": task.step_labels,
    }
    rows = parts[reads]()
    if rows is None:
        raise DataError(f"task {task.name} has no {_CALLED[reads]}, which method {recipe.method.name} learns from")
    return rows


_CALLED: dict[Reads, str] = {
    "prompts": "prompts",
    "demonstrations": "demonstrations",
    "preferences": "ranked completions",
    "steps": "completions with marked steps",
}


def _held_out_rows(recipe: Recipe, given: Given, task: Task | None) -> Rows | None:
    if task is None:
        named = recipe.data.held_out
        return None if named is None else read_rows(_one_of(given.held_out, named))
    if recipe.method.makes_a_policy:
        return task.held_out_rows()
    preferences = recipe.method.source().reads == "preferences"
    return task.held_out_preferences() if preferences else task.held_out_step_labels()


def _demonstrations(recipe: Recipe, given: Given, task: Task | None) -> Rows | None:
    if task is None:
        named = recipe.data.demonstrations
        return None if named is None else read_rows(_one_of(given.demonstrations, named))
    return None if recipe.method.makes_a_policy else task.demonstrations()


def _reward(recipe: Recipe, given: Given, task: Task | None) -> Reward | None:
    spec = _one_of(given.reward, recipe.reward)
    if task is None:
        return None if spec is None else resolve_reward(spec)
    reward = task_reward(task, spec)
    # The completions that a reward model learns from are graded already.
    return reward if recipe.method.makes_a_policy else None


def _held_out(recipe: Recipe, rows: Rows, reward: Reward | None) -> HeldOut:
    # A policy can be measured by what it answers, where something says what answers are worth.
    reads = recipe.method.source().reads
    answers = recipe.method.makes_a_policy and (reward is not None or reads == "prompts")
    if answers and reward is None:
        raise RecipeError("held-out completions are measured by a reward that says which are right: give `reward`")
    return HeldOut(rows, "prompts" if answers else reads, reward)


def _check_reward(held_out: HeldOut) -> None:
    if held_out.reads == "prompts" and held_out.reward is not None:
        held_out.reward.check_columns(held_out.rows.columns, held_out.rows.name)


def _one_of(thing: Any, named: Any) -> Any:
    return named if thing is None else thing
