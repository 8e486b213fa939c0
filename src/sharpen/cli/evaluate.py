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

from sharpen.cli.yaml_option import yaml_option
from sharpen.errors import RecipeError
from sharpen.launch.evaluate import OF_COMPLETIONS, SETTINGS, planned_evaluation, recipe_of
from sharpen.recipe.schema import Recipe
from sharpen.report.console import printable_text, safe_console
from sharpen.report.table import measures_table
from sharpen.runs.lookup import find_model
from sharpen.runs.samples import write_parquet
from sharpen.system.files import named_write_errors


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
    errors = safe_console(stderr=True, soft_wrap=True, highlight=False)
    # A user's reward may print; standard output is for the result.
    with redirect_stdout(sys.stderr):
        given = _parsed(options, reward)
        named = find_model(model)
        for note in named.notes:
            errors.print(note)
        if task is not None and data is not None:
            raise RecipeError("give --task or --data, not both")
        plan = planned_evaluation(
            named, given, of_run=recipe_of(named), task=task, data=data, spell=_as_option, out=out is not None
        )
        recipe, held_out = plan.recipe, plan.held_out
        with errors.status(printable_text(f"measuring {named.path} on {held_out.name}")):
            evaluation = plan.measure(say=lambda text: errors.print(text), trust_remote_code=trust_remote_code)
        if out is not None:
            with named_write_errors(out, "the answers"):
                write_parquet(out, evaluation.answer_rows(conversations=recipe.conversational))
            errors.print(f"answers: {out}")

    answered = held_out.reads == "prompts"
    settings = _settings(recipe, list(SETTINGS) if answered else OF_COMPLETIONS)
    from_run = [name for name in settings if named.run is not None and name not in given]
    rows_from_run = named.run is not None and task is None and data is None
    count = len(evaluation.groups)
    if as_json:
        said = {"model": named.path, "data": held_out.name, **settings, "prompts": count}
        said["from_run"] = [*(["data"] if rows_from_run else []), *from_run]
        # JSON leaves this one control character as it is.
        typer.echo(json.dumps({**said, "measures": evaluation.to_json()}).replace("\x7f", "\\u007f"))
        return
    console = safe_console(highlight=False, soft_wrap=True)
    measured = f"prompts of {held_out.name}, {recipe.evaluation.n} answers each"
    console.print(f"{named.path}: {count} {measured if answered else f'rows of {held_out.name}'}")
    if named.run is not None:
        as_in_the_run = ["the rows"] * rows_from_run + _shown({name: settings[name] for name in from_run})
        console.print(f"as in the run: {', '.join(as_in_the_run)}")
    console.print(measures_table(evaluation.measures))


def _parsed(options: Mapping[str, Any], reward: Sequence[str]) -> dict[str, Any]:
    """The given options, parsed to recipe values."""
    given = {name: value for name, value in options.items() if value is not None}
    if "k" in given:
        try:
            given["k"] = list(dict.fromkeys(int(part) for part in given["k"].split(",")))
        except ValueError:
            raise RecipeError(f"--k is a list of whole numbers such as 1,8,64, not {given['k']!r}") from None
    for name in ("columns", "chat_template_kwargs"):
        if name in given:
            given[name] = yaml_option(name.replace("_", "-"), given[name])
    if reward:
        specs = [yaml_option("reward", spec) for spec in reward]
        given["reward"] = specs[0] if len(specs) == 1 else specs
    return given


def _as_option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _settings(recipe: Recipe, names: Sequence[str]) -> dict[str, Any]:
    tree = recipe.model_dump(mode="json")
    result = {}
    for name in names:
        result[name] = reduce(getitem, SETTINGS[name].split("."), tree)
    return result


def _shown(settings: Mapping[str, Any]) -> list[str]:
    """``name=value`` for each non-empty setting; of a long text, its beginning."""
    said = {name: json.dumps(value) for name, value in settings.items() if value not in (None, {}, [])}
    return [f"{name}={value if len(value) <= 80 else f'{value[:80]}…'}" for name, value in said.items()]
