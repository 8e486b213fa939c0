"""What a run reads: rows, held-out rows and the reward, checked against each other before a model is loaded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from sharpen.config import DataSettings, Recipe
from sharpen.data.demonstrations import load_demonstrations
from sharpen.data.loading import Loaded
from sharpen.data.preferences import load_preferences
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import Rows, read_rows
from sharpen.data.steps import load_steps
from sharpen.data.tasks import Task, resolve_task
from sharpen.errors import DataError, RecipeError
from sharpen.in_memory import in_memory
from sharpen.rewards.registry import resolve_reward
from sharpen.rewards.reward import Reward
from sharpen.rewards.task import TaskReward
from sharpen.sources import Reads
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
class Inputs:
    """Rows to train on, rows to measure on where that is wanted, and the reward where there is one.

    Held-out rows hold what ``held_out_reads`` says: prompts that are answered and rewarded, or completions like
    those trained on, of which the loss and the method's own figures are taken. ``demonstrations`` are what a reward
    model's scores are centred on, where there are some.
    """

    rows: Rows
    held_out: Rows | None
    held_out_reads: Reads
    reward: Reward | None
    demonstrations: Rows | None = None


def read_inputs(recipe: Recipe, given: Given) -> Inputs:
    """Read the rows and resolve the reward of a recipe.

    Raises:
        SharpenError: something is missing, malformed, or does not fit the rest.
    """
    given.refuse_missing(recipe)
    inputs = _of_task(recipe, given) if recipe.data.task is not None else _of_data(recipe, given)
    if not recipe.evaluation.every:
        inputs = replace(inputs, held_out=None)
    answered = inputs.held_out is not None and inputs.held_out_reads == "prompts"
    if answered and inputs.reward is None:
        raise RecipeError("evaluation.every needs a reward that says which held-out completions are right")
    if recipe.method.needs_steps and (inputs.reward is None or not inputs.reward.gives_steps):
        raise RecipeError(
            f"method {recipe.method.name} with these settings needs a reward for every step of a completion, and this "
            "reward gives none: use reward `steps` or `process_reward_model`"
        )
    if inputs.reward is not None:
        for wanted, part in ((recipe.method.needs_reward, inputs.rows), (answered, inputs.held_out)):
            if wanted and part is not None:
                inputs.reward.check_columns(part.columns, part.name)
    return inputs


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


def _of_task(recipe: Recipe, given: Given) -> Inputs:
    assert recipe.data.task is not None
    task = resolve_task(recipe.data.task)
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
    reward = task_reward(task, _one_of(given.reward, recipe.reward))
    if recipe.method.makes_a_policy:
        return Inputs(rows, task.held_out_rows(), "prompts", reward)
    held_out = task.held_out_preferences() if reads == "preferences" else task.held_out_step_labels()
    return Inputs(rows, held_out, reads, None, task.demonstrations())


_CALLED: dict[Reads, str] = {
    "prompts": "prompts",
    "demonstrations": "demonstrations",
    "preferences": "ranked completions",
    "steps": "completions with marked steps",
}


def _of_data(recipe: Recipe, given: Given) -> Inputs:
    data, method = recipe.data, recipe.method
    rows = read_rows(_one_of(given.train, data.train))
    held_out = demonstrations = None
    if data.held_out is not None:
        held_out = read_rows(_one_of(given.held_out, data.held_out))
    if data.demonstrations is not None:
        demonstrations = read_rows(_one_of(given.demonstrations, data.demonstrations))
    spec = _one_of(given.reward, recipe.reward)
    reward = None if spec is None else resolve_reward(spec)
    # A policy can be measured by what it answers, where something says what answers are worth.
    answers = method.makes_a_policy and (reward is not None or method.source().reads == "prompts")
    return Inputs(rows, held_out, "prompts" if answers else method.source().reads, reward, demonstrations)


def _one_of(thing: Any, named: Any) -> Any:
    return named if thing is None else thing
