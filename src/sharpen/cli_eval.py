"""``sharpen eval``: measures of a model, as a table or as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
import yaml
from pydantic import ValidationError
from rich.console import Console

from sharpen.config import IN_MEMORY, EvaluationSettings
from sharpen.data.rows import Rows, read_rows
from sharpen.data.tasks import resolve_task
from sharpen.errors import RecipeError
from sharpen.evaluation.samples import write_samples
from sharpen.inputs import task_reward
from sharpen.models.dtype import AskedDtype
from sharpen.models.policy import load_policy
from sharpen.named_model import NamedModel, find_model
from sharpen.report.table import measures_table
from sharpen.rewards.registry import resolve_reward
from sharpen.rewards.reward import Reward
from sharpen.run import measure

USUAL_K = (1, 8, 64)
MAX_NEW_TOKENS = 256


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for on the command line."""

    model: str
    task: str | None
    data: str | None
    reward: Sequence[str]
    n: int
    k: str | None
    prompts: int
    max_new_tokens: int | None
    sampling: Mapping[str, float]
    threshold: float
    seed: int
    dtype: AskedDtype
    chat: bool
    system: str | None
    stop: tuple[str, ...]
    trust_remote_code: bool


def measure_model(request: Request, *, as_json: bool, out: Path | None) -> None:
    errors = Console(stderr=True, soft_wrap=True, highlight=False)
    # A reward of the user's may print; standard output is for the result.
    with redirect_stdout(sys.stderr):
        settings = _settings(request)
        named = find_model(request.model)
        for note in named.notes:
            errors.print(note, markup=False)
        rows, reward = _rows_and_reward(request, named)
        reward.check_columns(rows.columns, rows.name)
        policy = load_policy(named.path, compute_dtype=request.dtype, trust_remote_code=request.trust_remote_code)
        how = _how(request, named)
        count = min(request.prompts, len(rows))
        with errors.status(f"drawing {request.n} answers to each of {count} prompts of {rows.name}"):
            evaluation = measure(policy, rows, reward, settings, seed=request.seed, **how)
        if out is not None:
            write_samples(evaluation, out)
            errors.print(f"answers: {out}", markup=False)

    what = {"model": named.path, "data": rows.name, "prompts": len(evaluation.groups), "n": request.n}
    if as_json:
        settled = {**what, "seed": request.seed, "threshold": request.threshold, **request.sampling, **how}
        typer.echo(json.dumps({**settled, "measures": evaluation.to_json()}))
        return
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{named.path}: {what['prompts']} prompts of {rows.name}, {request.n} answers each", markup=False)
    console.print(measures_table(evaluation.measures))


def _settings(request: Request) -> EvaluationSettings:
    try:
        k = [int(part) for part in request.k.split(",")] if request.k else [k for k in USUAL_K if k <= request.n]
    except ValueError:
        raise RecipeError(f"--k is a list of whole numbers such as 1,8,64, not {request.k!r}") from None
    try:
        return EvaluationSettings.model_validate(
            {
                "prompts": request.prompts,
                "n": request.n,
                "k": tuple(dict.fromkeys(k)),
                "threshold": request.threshold,
                **request.sampling,
            }
        )
    except ValidationError as error:
        problems = (
            ": ".join([*(f"--{str(part).replace('_', '-')}" for part in e["loc"]), e["msg"]]) for e in error.errors()
        )
        raise RecipeError("; ".join(problems).replace("Value error, ", "")) from error


def _rows_and_reward(request: Request, named: NamedModel) -> tuple[Rows, Reward]:
    if request.task is not None and request.data is not None:
        raise RecipeError("give --task or --data, not both")
    task, data = request.task, request.data
    spec: Any = [yaml.safe_load(reward) for reward in request.reward] or None
    recipe = named.recipe
    if task is None and data is None and recipe is not None:
        task, data = recipe.data.task, recipe.data.held_out
        spec = spec or recipe.reward
        if IN_MEMORY in (data, spec):
            raise RecipeError(f"{request.model}: its prompts or reward were given in Python; give --data and --reward")
    if task is not None:
        resolved = resolve_task(task)
        return resolved.held_out_rows(), task_reward(resolved, spec)
    if data is None:
        raise RecipeError("say what to measure on: --task NAME (`sharpen tasks` lists them) or --data FILE")
    if spec is None:
        raise RecipeError(f"say which answers to {data} are right: --reward NAME (`sharpen rewards` lists them)")
    return read_rows(data), resolve_reward(spec)


def _how(request: Request, named: NamedModel) -> dict[str, Any]:
    """Length, end and form of the prompts: what was asked for, else the run's own."""
    recipe = named.recipe
    if recipe is None:
        return {
            "max_new_tokens": request.max_new_tokens or MAX_NEW_TOKENS,
            "stop": request.stop,
            "chat": request.chat,
            "system": request.system,
        }
    return {
        "max_new_tokens": request.max_new_tokens or recipe.rollout.max_new_tokens,
        "stop": request.stop or recipe.rollout.stop,
        "chat": request.chat or recipe.data.chat,
        "system": request.system or recipe.data.system,
        "chat_template_kwargs": recipe.data.chat_template_kwargs,
    }
