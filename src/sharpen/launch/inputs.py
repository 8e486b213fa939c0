"""What a run reads: rows, held-out rows and the reward, checked against each other before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from sharpen.data.demonstrations import load_demonstrations
from sharpen.data.preferences import load_preferences
from sharpen.data.prompt_format import Loaded, PromptFormat
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import Rows, read_rows
from sharpen.data.settings import DataSettings
from sharpen.data.steps import load_steps
from sharpen.data.tasks import Task, resolve_task
from sharpen.errors import DataError, RecipeError
from sharpen.methods import Method
from sharpen.recipe.schema import Recipe
from sharpen.rewards.registry import resolve_reward
from sharpen.rewards.reward import Reward
from sharpen.rewards.task import TaskReward
from sharpen.rollout.engine import Engine
from sharpen.rollout.sources import Reads
from sharpen.types import Group, Prompt

Say = Callable[[str], None]
Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Rows to measure on: prompts to answer and score, or, as ``reads`` says, completions like those trained on, to
    compute the loss and the method's figures of."""

    rows: Rows
    reads: Reads
    reward: Reward | None


@dataclass(frozen=True, slots=True)
class Inputs:
    """The rows to train on and, each if there are any, those to measure on, the reward, the demonstrations that a
    reward model's scores are normalised on, and the rows of the method's second source."""

    rows: Rows
    held_out: HeldOut | None
    reward: Reward | None
    demonstrations: Rows | None = None
    mixed: Rows | None = None


def refuse_missing(recipe: Recipe) -> None:
    """Raises RecipeError if the recipe was made with Python objects that are not given now."""
    if places := ", ".join(f"`{place}`" for place in recipe.missing()):
        raise RecipeError(f"this run was given {places} in Python; resume it there, with the same objects")


def read_inputs(recipe: Recipe) -> Inputs:
    """Read the rows and resolve the reward of a recipe.

    Raises:
        SharpenError: something is missing, malformed, or does not fit the rest.
    """
    method, data = recipe.method, recipe.data
    refuse_missing(recipe)
    task = _task(data)
    rows = read_rows(data.train) if task is None else _train_rows_of(task, method)
    held_out_rows = _held_out_rows(data, method, task)
    demonstrations = _demonstrations(data, method, task)
    reward = _reward(recipe.reward, method, task)
    held_out = None
    if recipe.evaluation.every and held_out_rows is not None:
        held_out = _held_out(method, held_out_rows, reward)
    if method.needs_steps and (reward is None or not reward.gives_steps):
        raise RecipeError(
            f"method {method.name} with these settings needs a reward for every step of a completion, and this "
            "reward gives none: use reward `steps` or `process_reward_model`"
        )
    if reward is not None and method.needs_reward:
        reward.check_columns(rows.columns, rows.name)
    if held_out is not None:
        _check_reward(held_out)
    return Inputs(rows, held_out, reward, demonstrations, _mixed_rows(data, method))


def read_held_out(recipe: Recipe) -> HeldOut:
    """Read the held-out rows of a recipe, even if its run never measures, and none of those it trains on.

    Raises:
        SharpenError: something is missing, malformed, or does not fit the rest.
    """
    method, data = recipe.method, recipe.data
    task = _task(data)
    rows = _held_out_rows(data, method, task)
    if rows is None:
        raise DataError("there are no held-out rows to measure on: give data.held_out")
    held_out = _held_out(method, rows, _reward(recipe.reward, method, task))
    _check_reward(held_out)
    return held_out


def task_reward(task: Task, spec: Any) -> Reward:
    """The task's verifier, or the reward that ``spec`` describes, in which the name ``task`` means that verifier."""
    return TaskReward(task) if spec is None else resolve_reward(spec, task)


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
                f"together more than the {engine.context_length} tokens whose keys and values the engine has memory "
                "for: raise rollout.engine.kv_gib, lower rollout.max_new_tokens, or make the prompt shorter"
            )
    return prompts


def groups_of(
    reads: Reads, rows: Rows, format: PromptFormat, *, step_separator: str | None, say: Say
) -> tuple[Group, ...]:
    """The completions that rows hold; ``say`` is told how many are left out as too long, if the settings allow that."""
    if reads == "preferences":
        return _reported(load_preferences(rows, format), rows, say)
    if reads == "steps":
        return _reported(load_steps(rows, format, separator=step_separator), rows, say)
    return _reported(load_demonstrations(rows, format), rows, say)


def _reported(loaded: Loaded[Item], rows: Rows, say: Say) -> tuple[Item, ...]:
    if loaded.dropped:
        say(f"{rows.name}: left out {loaded.dropped} of {len(rows)} rows, too long for the context")
    return loaded.items


def _task(data: DataSettings) -> Task | None:
    return None if data.task is None else resolve_task(data.task)


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


def _held_out_rows(data: DataSettings, method: Method, task: Task | None) -> Rows | None:
    if task is None:
        return None if data.held_out is None else read_rows(data.held_out)
    if method.makes_a_policy:
        return task.held_out_rows()
    preferences = method.source().reads == "preferences"
    return task.held_out_preferences() if preferences else task.held_out_step_labels()


def _demonstrations(data: DataSettings, method: Method, task: Task | None) -> Rows | None:
    if task is None:
        named = data.demonstrations
        return None if named is None else read_rows(named)
    return None if method.makes_a_policy else task.demonstrations()


def _mixed_rows(data: DataSettings, method: Method) -> Rows | None:
    mixed = method.mixed()
    named = data.mixed
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
    if named is None:
        raise RecipeError(f"method {method.name} has a second source: give its rows as data.mixed")
    return read_rows(named)


def _reward(spec: Any, method: Method, task: Task | None) -> Reward | None:
    if task is None:
        return None if spec is None else resolve_reward(spec)
    reward = task_reward(task, spec)
    # The completions that a reward model learns from are already graded.
    return reward if method.makes_a_policy else None


def _held_out(method: Method, rows: Rows, reward: Reward | None) -> HeldOut:
    # A policy can be measured by its answers if there is a reward to score them.
    reads = method.source().reads
    answers = method.makes_a_policy and (reward is not None or reads == "prompts")
    if answers and reward is None:
        raise RecipeError("held-out answers are measured by a reward that says which are right: give `reward`")
    return HeldOut(rows, "prompts" if answers else reads, reward)


def _check_reward(held_out: HeldOut) -> None:
    if held_out.reads == "prompts" and held_out.reward is not None:
        held_out.reward.check_columns(held_out.rows.columns, held_out.rows.name)
