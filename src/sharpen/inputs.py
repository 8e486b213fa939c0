"""What a run reads: rows, held-out rows and the reward, checked against each other before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from sharpen.config import IN_MEMORY, DataSettings, Recipe
from sharpen.data.demonstrations import load_demonstrations
from sharpen.data.loading import Loaded
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import Rows, read_rows
from sharpen.data.tasks import Task, resolve_task
from sharpen.errors import DataError, RecipeError
from sharpen.rewards.combine import WeightedSum
from sharpen.rewards.registry import resolve_reward
from sharpen.rewards.reward import Reward
from sharpen.rewards.task import TaskReward
from sharpen.types import Group, Prompt

Say = Callable[[str], None]
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Given:
    """Python objects that take the place of what a recipe names: rows and a reward."""

    train: Any = None
    held_out: Any = None
    reward: Any = None


NOTHING_GIVEN = Given()


@dataclass(frozen=True, slots=True)
class Inputs:
    """Rows to train on, rows to measure on where that is wanted, and the reward where there is one."""

    rows: Rows
    held_out: Rows | None
    reward: Reward | None


def read_inputs(recipe: Recipe, given: Given) -> Inputs:
    """Read the rows and resolve the reward of a recipe.

    Raises:
        SharpenError: something is missing, malformed, or does not fit the rest.
    """
    rows, held_out, reward = _of_task(recipe, given) if recipe.data.task is not None else _of_data(recipe, given)
    if not recipe.evaluation.every:
        held_out = None
    if held_out is not None and reward is None:
        raise RecipeError("evaluation.every needs a reward that says which held-out completions are right")
    if reward is not None:
        for wanted, part in ((recipe.method.needs_reward, rows), (held_out is not None, held_out)):
            if wanted and part is not None:
                reward.check_columns(part.columns, part.name)
    return Inputs(rows, held_out, reward)


def task_reward(task: Task, spec: Any) -> Reward:
    """The task's own verifier, or what ``spec`` says, where the name ``task`` stands for that verifier."""
    if spec is None:
        return TaskReward(task)
    weighted: list[tuple[Reward, float]] = []
    for item in [spec] if isinstance(spec, (str, dict)) or callable(spec) else spec:
        settings = dict(item) if isinstance(item, dict) else {"name": item}
        weight = float(settings.pop("weight", 1.0))
        if settings.get("name") == "task":
            weighted.append((TaskReward(task), weight))
        else:
            weighted.append((resolve_reward(settings if isinstance(item, dict) else item), weight))
    return weighted[0][0] if len(weighted) == 1 and weighted[0][1] == 1.0 else WeightedSum(weighted)


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


def demonstrations_of(
    rows: Rows, tokenizer: PreTrainedTokenizerBase, data: DataSettings, *, context_length: int, say: Say
) -> tuple[Group, ...]:
    """The demonstrations of rows, those too long left out, and said, where the settings allow it."""
    loaded = load_demonstrations(
        rows,
        tokenizer,
        context_length=context_length,
        chat=data.chat,
        system=data.system,
        chat_template_kwargs=data.chat_template_kwargs,
        overlong=data.overlong,
    )
    return _reported(loaded, rows, say)


def _reported(loaded: Loaded[Item], rows: Rows, say: Say) -> tuple[Item, ...]:
    if loaded.dropped:
        say(f"{rows.name}: left out {loaded.dropped} of {len(rows)} rows, too long for the context")
    return loaded.items


def _of_task(recipe: Recipe, given: Given) -> tuple[Rows, Rows, Reward]:
    assert recipe.data.task is not None
    task = resolve_task(recipe.data.task)
    rows: Rows | None = task.train_rows()
    if recipe.method.source().reads == "demonstrations":
        rows = task.demonstrations()
        if rows is None:
            raise DataError(f"task {task.name} has no demonstrations, which method {recipe.method.name} imitates")
    assert rows is not None
    return rows, task.held_out_rows(), task_reward(task, _one_of(given.reward, recipe.reward, "reward"))


def _of_data(recipe: Recipe, given: Given) -> tuple[Rows, Rows | None, Reward | None]:
    data = recipe.data
    rows = read_rows(_one_of(given.train, data.train, "data.train"))
    held_out = None
    if data.held_out is not None:
        held_out = read_rows(_one_of(given.held_out, data.held_out, "data.held_out"))
    spec = _one_of(given.reward, recipe.reward, "reward")
    return rows, held_out, None if spec is None else resolve_reward(spec)


def _one_of(thing: Any, named: Any, what: str) -> Any:
    if thing is None and named == IN_MEMORY:
        raise RecipeError(f"`{what}` of this run was given in Python; resume it there, with the same object")
    return named if thing is None else thing
