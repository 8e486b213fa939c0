"""Evaluations of any model, and of a run as it measured itself, with some settings changed.

``sharpen eval`` and `sharpen.evaluate` get the same numbers.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpen.data.tasks import is_task, names_task
from sharpen.errors import RecipeError
from sharpen.evaluation.runner import Evaluation
from sharpen.launch.handle import Run
from sharpen.launch.inputs import HeldOut, read_held_out
from sharpen.launch.measure import measure
from sharpen.launch.source_rows import Say
from sharpen.models.dtype import AskedDtype
from sharpen.recipe.loading import derived_recipe, load_recipe
from sharpen.recipe.schema import Recipe
from sharpen.runs.lookup import NamedModel, find_model

USUAL_N, USUAL_K, USUAL_PROMPTS = 8, (1, 8, 64), 200
"""Defaults for a model without a run; other settings take the recipe defaults."""

SETTINGS = {
    "prompts": "evaluation.prompts",
    "n": "evaluation.n",
    "k": "evaluation.k",
    "threshold": "evaluation.threshold",
    "temperature": "evaluation.temperature",
    "top_k": "evaluation.top_k",
    "top_p": "evaluation.top_p",
    "min_p": "evaluation.min_p",
    "seed": "seed",
    "max_new_tokens": "rollout.max_new_tokens",
    "stop": "rollout.stop",
    "max_sequences": "rollout.engine.max_sequences",
    "kv_gib": "rollout.engine.kv_gib",
    "max_reward_failures": "rollout.max_reward_failures",
    "columns": "data.columns",
    "chat": "data.chat",
    "system": "data.system",
    "chat_template_kwargs": "data.chat_template_kwargs",
    "chat_template": "data.chat_template",
    "date": "data.date",
    "overlong": "data.overlong",
    "dtype": "model.compute_dtype",
    "device": "model.device",
    "reward": "reward",
}
"""Settings that affect the measures, with their path in a recipe."""

OF_SOURCES = ("reward", "columns", "chat", "system", "chat_template_kwargs")
"""Settings that each of several data sources may have of its own."""

OF_COMPLETIONS = (
    *("prompts", "columns", "chat", "system", "chat_template_kwargs", "chat_template", "date"),
    *("overlong", "dtype", "device"),
)
"""Settings that still matter when no completions are generated."""


@dataclass(frozen=True, slots=True)
class PlannedEvaluation:
    """The model, the settings and the rows of an evaluation; ``given`` are the settings that do not come from its
    run."""

    named: NamedModel
    recipe: Recipe
    held_out: HeldOut
    given: tuple[str, ...]

    def measure(self, *, say: Say, trust_remote_code: bool = False) -> Evaluation:
        return measure(self.recipe, self.held_out, self.named.path, say=say, trust_remote_code=trust_remote_code)


def planned_evaluation(
    named: NamedModel,
    given: Mapping[str, Any],
    *,
    of_run: Recipe | None,
    task: Any,
    data: Any,
    spell: Callable[[str], str],
    out: bool = False,
) -> PlannedEvaluation:
    """The evaluation of a model with the settings ``given``, whose keys are those of `SETTINGS`, and otherwise those of
    its run's recipe ``of_run``, if it has a run.

    It is on the held-out problems of ``task``, the rows ``data``, or by default on those of the model's run. ``spell``
    writes a setting's name, and a placeholder after it, as the user does; ``out`` says that the answers are wanted.

    Raises:
        SharpenError: something cannot be used, or would have no effect.
    """
    recipe = _recipe(named, of_run, given, task, data, spell)
    held_out = read_held_out(recipe)
    if recipe.evaluation.temperature == 0 and given.get("n", 1) > recipe.evaluation.n:
        raise RecipeError(f"no effect of {spell('n')}: at temperature 0 all answers to a prompt are equal")
    _refuse_idle(recipe, held_out, [*given, *(["out"] if out else [])], spell)
    return PlannedEvaluation(named, recipe, held_out, tuple(given))


def evaluate(
    model: str | Path | Run,
    data: Any = None,
    reward: Any = None,
    *,
    n: int | None = None,
    k: int | Sequence[int] | None = None,
    prompts: int | None = None,
    max_new_tokens: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    min_p: float | None = None,
    threshold: float | None = None,
    seed: int | None = None,
    stop: Sequence[str] | None = None,
    columns: Mapping[str, str] | None = None,
    chat: bool | None = None,
    system: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    chat_template: str | None = None,
    dtype: AskedDtype | None = None,
    device: str | None = None,
    trust_remote_code: bool = False,
) -> Evaluation:
    """Measure a model: pass@k, maj@k, reward, length, with intervals. The numbers are those of ``sharpen eval``.

    A run or checkpoint is measured as the run measured itself: on its held-out rows, with its reward and settings;
    each argument overrides one of them. A model trained on completions, without a reward, is measured by its loss.

    Args:
        model: a run, a checkpoint, a model folder or a hub id.
        data: a task, or prompts in any form that `sharpen.train` takes.
        reward: what is right, in any form that `sharpen.train` takes. A task has its own.
        n: answers per prompt; by default the run's, or 8.
        k: the k of pass@k and maj@k; by default the run's, or 1, 8 and 64 up to n.
        prompts: how many prompts, from the first; by default the run's, or 200.
        max_new_tokens: the longest answer, in tokens.
        temperature: 0 is greedy decoding.
        top_p: sample from the most likely tokens of this total probability.
        top_k: sample from this many of the most likely tokens; 0: from all.
        min_p: the least probability of a token, relative to the most likely one.
        threshold: the least reward of a right answer.
        seed: the same seed gives the same answers.
        stop: texts at which an answer stops.
        columns: names of columns that sharpen or the reward reads, and what they are called in the data:
            ``{"prompt": "question"}``.
        chat: wrap a prompt that is a plain text as a user message.
        system: a system message for conversations.
        chat_template_kwargs: arguments of the chat template.
        chat_template: a chat template in place of the tokenizer's own: a file, its text, or the name of one of its own.
        dtype: the type of matrix products: ``float32``, ``bfloat16`` or ``auto``.
        device: ``auto`` is the GPU if there is one.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        SharpenError: something cannot be used, or would have no effect.
    """
    options = {
        "n": n,
        "k": (k,) if isinstance(k, int) else k,
        "prompts": prompts,
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "top_k": top_k,
        "min_p": min_p,
        "threshold": threshold,
        "seed": seed,
        "stop": stop,
        "columns": columns,
        "chat": chat,
        "system": system,
        "chat_template_kwargs": chat_template_kwargs,
        "chat_template": chat_template,
        "dtype": dtype,
        "device": device,
        "reward": reward,
    }
    given = {name: value for name, value in options.items() if value is not None}
    named = find_model(str(model.path if isinstance(model, Run) else model))
    for note in named.notes[:-1]:  # the last only says which checkpoint it is
        warnings.warn(note, stacklevel=2)
    a_task = is_task(data) or (isinstance(data, str) and names_task(data))
    plan = planned_evaluation(
        named,
        given,
        of_run=model.recipe if isinstance(model, Run) else recipe_of(named),
        task=data if a_task else None,
        data=None if a_task else data,
        spell=_as_argument,
    )
    return plan.measure(say=warnings.warn, trust_remote_code=trust_remote_code)


def _as_argument(name: str) -> str:
    name = name.partition(" ")[0]
    return "a task as `data`" if name == "task" else f"`{name}`"


def recipe_of(named: NamedModel) -> Recipe | None:
    """The recipe of a model's run, if it has one."""
    return None if named.run is None else load_recipe(named.run.recipe)


def _recipe(
    named: NamedModel,
    of_run: Recipe | None,
    given: Mapping[str, Any],
    task: Any,
    data: Any,
    spell: Callable[[str], str],
) -> Recipe:
    """The run's recipe with the given settings; for a model without a run, a recipe for this evaluation only."""
    tree = _usual(named, given) if of_run is None else of_run.tree()
    for name, value in given.items():
        section, _, key = SETTINGS[name].rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[key] = value
    rows = tree.setdefault("data", {})
    sources = rows.get("sources", {})
    if task is not None:
        if "columns" in given:
            raise RecipeError(f"no effect of {spell('columns')}: a task names its own columns")
        rows.update(task=task, train=None, held_out=None, columns={}, sources={})
    elif data is not None:
        if tree.get("reward") is None and (of_run is None or of_run.method.needs_reward):
            raise RecipeError(
                f"say which answers to {_shown(data)} are right: give {spell('reward NAME')} "
                "(`sharpen rewards` lists them)"
            )
        rows.update(task=None, train=data, held_out=data, sources={})
    elif not any(one.get("task") or one.get("held_out") for one in (rows, *sources.values())):
        raise RecipeError(
            f"say what to measure on: {spell('task NAME')} (`sharpen tasks` lists them) or {spell('data FILE')}"
        )
    else:
        _override(tree, sources, given)
    # What this evaluation reads has an effect, also where the run never evaluates.
    evaluation = tree.setdefault("evaluation", {})
    evaluation["every"] = evaluation.get("every") or 1
    recipe = derived_recipe(tree, where="the evaluation")
    lacking = [path.partition("[")[0].split(".") for path in recipe.missing()]
    wanted = {"data": any(path[-1] == "held_out" for path in lacking), "reward": any("reward" in p for p in lacking)}
    if missing := [name for name, wants in wanted.items() if wants]:
        raise RecipeError(
            f"{named.path}: its run was given rows or a reward in Python; give {' and '.join(map(spell, missing))}"
        )
    return recipe


def _override(tree: dict[str, Any], sources: Mapping[str, dict[str, Any]], given: Mapping[str, Any]) -> None:
    """Let the given settings hold for each of a run's data sources, whatever it has of its own."""
    for source in sources.values():
        own = [name for name in OF_SOURCES if name in given and not (name == "columns" and source.get("task"))]
        source.update({name: given[name] for name in own})
    if sources and "reward" in given:
        tree["reward"] = None


def _refuse_idle(recipe: Recipe, held_out: HeldOut, given: Sequence[str], spell: Callable[[str], str]) -> None:
    """Raises RecipeError for settings that would have no effect."""
    if held_out.reads != "prompts":
        idle = [name for name in given if name not in OF_COMPLETIONS]
        why = f"{recipe.method.name} is measured by its loss on held-out completions, and generates no answers"
        if recipe.method.makes_a_policy:
            why += f"; give {spell('task')}, or {spell('reward')}, to measure answers"
    else:
        greedy = recipe.evaluation.temperature == 0
        idle = [name for name in given if greedy and name in ("top_k", "top_p", "min_p")]
        why = "at temperature 0 the most likely token is taken"
    if idle:
        raise RecipeError(f"no effect of {', '.join(map(spell, idle))}: {why}")


def _usual(named: NamedModel, given: Mapping[str, Any]) -> dict[str, Any]:
    n = given.get("n", USUAL_N)
    return {
        "run": ".",
        "model": {"path": named.path},
        # Nothing is trained. With SFT the model counts as a policy, evaluated on its completions if there is a reward.
        "method": "sft",
        "evaluation": {"prompts": USUAL_PROMPTS, "n": n, "k": [k for k in USUAL_K if k <= n]},
    }


def _shown(data: Any) -> str:
    return str(data) if isinstance(data, str | os.PathLike) else "these rows"
