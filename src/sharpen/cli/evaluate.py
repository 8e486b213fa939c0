"""``sharpen eval``: measures of a model, as a table or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import typer
import yaml
from rich.console import Console

from sharpen.errors import RecipeError
from sharpen.evaluation.runner import Evaluation
from sharpen.in_memory import in_memory
from sharpen.launch.inputs import read_held_out
from sharpen.launch.run import measure
from sharpen.methods import SFT, Method
from sharpen.recipe.loading import derived_recipe, load_recipe
from sharpen.recipe.schema import Recipe
from sharpen.report.table import measures_table
from sharpen.runs.lookup import NamedModel, find_model
from sharpen.runs.samples import sample_rows, write_parquet

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
    "chat": "data.chat",
    "system": "data.system",
    "chat_template_kwargs": "data.chat_template_kwargs",
    "overlong": "data.overlong",
    "dtype": "model.compute_dtype",
    "device": "model.device",
    "reward": "reward",
}
"""Settings that affect the measures, with their path in a recipe."""

OF_COMPLETIONS = ("prompts", "chat", "system", "chat_template_kwargs", "overlong", "dtype", "device")
"""Settings that still matter when no completions are generated."""


def measure_model(
    model: str,
    options: Mapping[str, Any],
    *,
    task: str | None,
    data: str | None,
    reward: Sequence[str],
    as_json: bool,
    out: Path | None,
    trust_remote_code: bool,
) -> None:
    """Measure and print. The keys of ``options`` are those of ``SETTINGS``; None means the run's value or the default.

    Raises:
        SharpenError: something cannot be used, or would have no effect.
    """
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    # A user's reward may print; standard output is for the result.
    with redirect_stdout(sys.stderr):
        given = _parsed(options, reward)
        named = find_model(model)
        for note in named.notes:
            errors.print(note, markup=False)
        recipe = _recipe(named, given, task, data, out)
        held_out = read_held_out(recipe)
        with errors.status(f"measuring {named.path} on {held_out.rows.name}"):
            evaluation = measure(
                recipe,
                held_out,
                named.path,
                say=lambda text: errors.print(text, markup=False),
                trust_remote_code=trust_remote_code,
            )
        if out is not None:
            _write_answers(evaluation, out, conversations=recipe.rollout.turns is not None)
            errors.print(f"answers: {out}", markup=False)

    answered = held_out.reads == "prompts"
    settings = _settings(recipe, list(SETTINGS) if answered else OF_COMPLETIONS)
    from_run = [name for name in settings if named.run is not None and name not in given]
    rows_from_run = named.run is not None and task is None and data is None
    count = len(evaluation.groups)
    if as_json:
        said = {"model": named.path, "data": held_out.rows.name, **settings, "prompts": count}
        said["from_run"] = [*(["data"] if rows_from_run else []), *from_run]
        typer.echo(json.dumps({**said, "measures": evaluation.to_json()}))
        return
    console = Console(highlight=False, soft_wrap=True)
    measured = f"prompts of {held_out.rows.name}, {recipe.evaluation.n} answers each"
    console.print(f"{named.path}: {count} {measured if answered else f'rows of {held_out.rows.name}'}", markup=False)
    if named.run is not None:
        as_in_the_run = ["the rows"] * rows_from_run + _shown({name: settings[name] for name in from_run})
        console.print(f"as in the run: {', '.join(as_in_the_run)}", markup=False)
    console.print(measures_table(evaluation.measures))


def _write_answers(evaluation: Evaluation, path: Path, *, conversations: bool) -> None:
    right = [mark for marks in evaluation.right for mark in marks]
    rows = sample_rows(evaluation.groups, conversations=conversations)
    write_parquet(path, [{**row, "right": is_right} for row, is_right in zip(rows, right, strict=True)])


def _parsed(options: Mapping[str, Any], reward: Sequence[str]) -> dict[str, Any]:
    """The given options, parsed to recipe values."""
    given = {name: value for name, value in options.items() if value is not None}
    if "k" in given:
        try:
            given["k"] = list(dict.fromkeys(int(part) for part in given["k"].split(",")))
        except ValueError:
            raise RecipeError(f"--k is a list of whole numbers such as 1,8,64, not {given['k']!r}") from None
    if "chat_template_kwargs" in given:
        given["chat_template_kwargs"] = _yaml("chat-template-kwargs", given["chat_template_kwargs"])
    if reward:
        specs = [_yaml("reward", spec) for spec in reward]
        given["reward"] = specs[0] if len(specs) == 1 else specs
    return given


def _yaml(option: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"--{option}: {text!r} is not YAML") from error


def _recipe(
    named: NamedModel, given: Mapping[str, Any], task: str | None, data: str | None, out: Path | None
) -> Recipe:
    """The run's recipe with the given options; for a model without a run, a recipe for this evaluation only."""
    if task is not None and data is not None:
        raise RecipeError("give --task or --data, not both")
    of_run = None if named.run is None else load_recipe(named.run.recipe)
    tree = _usual(named, given) if of_run is None else of_run.model_dump(mode="json")
    for name, value in given.items():
        section, _, key = SETTINGS[name].rpartition(".")
        (tree.setdefault(section, {}) if section else tree)[key] = value
    rows = tree.setdefault("data", {})
    if task is not None:
        rows.update(task=task, train=None, held_out=None)
    elif data is not None:
        if tree.get("reward") is None and (of_run is None or of_run.method.needs_reward):
            raise RecipeError(f"say which answers to {data} are right: --reward NAME (`sharpen rewards` lists them)")
        rows.update(task=None, train=data, held_out=data)
    elif rows.get("task") is None and rows.get("held_out") is None:
        raise RecipeError("say what to measure on: --task NAME (`sharpen tasks` lists them) or --data FILE")
    options = {"--data": rows.get("held_out"), "--reward": tree.get("reward")}
    missing = [option for option, value in options.items() if any(in_memory(value, value))]
    if missing:
        raise RecipeError(f"{named.path}: its run was given rows or a reward in Python; give {' and '.join(missing)}")
    # What this evaluation reads has an effect, also where the run never evaluates.
    evaluation = tree.setdefault("evaluation", {})
    evaluation["every"] = evaluation.get("every") or 1
    method = SFT() if of_run is None else of_run.method
    scored = tree.get("reward") is not None or rows.get("task") is not None
    answered = method.makes_a_policy and (scored or method.source().reads == "prompts")
    _refuse_idle(method, answered, evaluation.get("temperature"), [*given, *(["out"] if out is not None else [])])
    return derived_recipe(tree, where="sharpen eval")


def _usual(named: NamedModel, given: Mapping[str, Any]) -> dict[str, Any]:
    n = given.get("n", USUAL_N)
    return {
        "run": ".",
        "model": {"path": named.path},
        # Nothing is trained. With SFT the model counts as a policy, evaluated on its completions if there is a reward.
        "method": "sft",
        "evaluation": {"prompts": USUAL_PROMPTS, "n": n, "k": [k for k in USUAL_K if k <= n]},
    }


def _refuse_idle(method: Method, answered: bool, temperature: float | None, given: Sequence[str]) -> None:
    """Raises RecipeError for options that would have no effect."""
    if not answered:
        idle = [name for name in given if name not in OF_COMPLETIONS]
        why = f"{method.name} is measured by its loss on held-out completions, and generates no answers"
        if method.makes_a_policy:
            why += "; give --task, or --reward, to measure answers"
    else:
        idle = [name for name in given if temperature == 0 and name in ("top_k", "top_p", "min_p")]
        why = "at temperature 0 the most likely token is taken"
    if idle:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
        raise RecipeError(f"no effect of {options}: {why}")


def _settings(recipe: Recipe, names: Sequence[str]) -> dict[str, Any]:
    tree = recipe.model_dump(mode="json")
    result = {}
    for name in names:
        result[name] = reduce(getitem, SETTINGS[name].split("."), tree)
    return result


def _shown(settings: Mapping[str, Any]) -> list[str]:
    """``name=value`` for each non-empty setting."""
    return [f"{name}={json.dumps(value)}" for name, value in settings.items() if value not in (None, {}, [])]
