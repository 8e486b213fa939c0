"""What the reward of a recipe accepts, before anything is trained."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from sharpen.data.prompt_format import PromptFormat
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import Rows
from sharpen.data.settings import DataSettings
from sharpen.errors import RecipeError
from sharpen.launch.data_sources import read_sources
from sharpen.launch.inputs import read_inputs
from sharpen.launch.source_rows import SourceRows
from sharpen.launch.without_weights import tokenizer_of
from sharpen.recipe.schema import Recipe
from sharpen.rewards.checking.checker import check
from sharpen.rewards.checking.prompts import questions
from sharpen.rewards.checking.references import said_by_assistant
from sharpen.rewards.checking.report import RewardReport
from sharpen.rewards.reward import Reward
from sharpen.types import Prompt, Row


def check_recipe(
    recipe: Recipe, *, trust_remote_code: bool = False, say: Callable[[str], None] = lambda text: None
) -> tuple[RewardReport, ...]:
    """Check the reward of each data source of a recipe on its prompts; see `sharpen.rewards.check`.

    A completion is accepted if its reward is at least ``evaluation.threshold``. The policy is not loaded, and its
    tokenizer only if a reward reads tokens.

    Raises:
        SharpenError: the recipe has no reward, or something in it cannot be used.
    """
    checked = _to_check(recipe)
    tokenizer = None
    if any(leaf.reads_tokens for one in checked for leaf in one.reward.leaves()):
        tokenizer = tokenizer_of(recipe, trust_remote_code=trust_remote_code)
    settings = recipe.reward_check
    return tuple(
        check(
            one.reward,
            one.rows,
            reference=settings.reference or one.reference,
            allow=settings.allow,
            at_most=settings.rows,
            cheat_at_most=settings.cheat_rows,
            threshold=recipe.evaluation.threshold,
            timeout_s=settings.timeout_s,
            tokenizer=tokenizer,
            prompts=questions if tokenizer is None else _prompts(PromptFormat.of(one.data, tokenizer, sys.maxsize)),
            say=say,
        )
        for one in checked
    )


@dataclass(frozen=True, slots=True)
class _Checked:
    """The rows of a source to answer, its reward, and a task's function from a row to a reference completion."""

    rows: Rows
    data: DataSettings
    reward: Reward
    reference: Callable[[Row], str | None] | None = None


def _to_check(recipe: Recipe) -> list[_Checked]:
    if recipe.missing():
        raise RecipeError(
            "the rows or the reward of this recipe were given in Python; check them there: "
            "sharpen.rewards.check(reward, rows)"
        )
    if not recipe.method.makes_a_policy:
        raise RecipeError(f"method {recipe.method.name} trains a reward model, so there is no reward to check")
    answered: dict[str, SourceRows] = {}
    if all(data.task is not None for data in recipe.data.by_source().values()):
        sources = read_sources(recipe)
    else:
        inputs = read_inputs(recipe)
        sources = inputs.sources
        answered = {part.source: part for part in inputs.train}
        if recipe.method.source().reads != "prompts" and inputs.held_out is not None:
            answered |= {part.source: part for part in inputs.held_out.parts}
    found = []
    for source in sources:
        if source.reward is None:
            continue
        if source.task is not None:
            rows = source.named(source.task.train_rows())
            found.append(_Checked(rows, source.data, source.reward, source.task.reference))
        else:
            part = answered[source.name]
            found.append(_Checked(part.rows, part.data, source.reward))
    if not found:
        raise RecipeError("this recipe has no reward to check")
    return found


def _prompts(format: PromptFormat) -> Callable[[Rows], tuple[Prompt, ...]]:
    """Makes the prompts of rows as a run does."""

    def prompts(rows: Rows) -> tuple[Prompt, ...]:
        loaded = load_prompts(replace(rows, data=[_without_answer(row) for row in rows]), format, max_new_tokens=0)
        return tuple(replace(prompt, row=row) for prompt, row in zip(loaded.items, rows, strict=True))

    return prompts


def _without_answer(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A demonstration in ``messages`` becomes the prompt that it answers."""
    if said_by_assistant(row.get("messages")) is None:
        return row
    return {**row, "messages": row["messages"][:-1]}
