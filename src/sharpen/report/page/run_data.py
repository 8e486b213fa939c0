"""What the page shows of runs, as JSON: the page's own data, and chunks that it loads when they are looked at."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from sharpen.errors import DataError
from sharpen.report.page.evaluations import evaluations, paired_changes
from sharpen.report.page.findings import findings
from sharpen.report.page.glance import glance
from sharpen.report.page.json_text import Json
from sharpen.report.page.prompts import prompts_chunk
from sharpen.report.page.recipe_text import at, read_recipe
from sharpen.report.page.rollouts import columns_read, step_chunk
from sharpen.report.page.series import MOST_ROWS, series_data
from sharpen.report.page.tokens import COLUMNS as TOKEN_COLUMNS
from sharpen.report.page.tokens import tokens_chunk
from sharpen.runs.changes import Changes
from sharpen.runs.folder import RunFolder
from sharpen.runs.lock import is_locked
from sharpen.runs.metric_catalogue import describe
from sharpen.runs.sample_files import SampleFiles

Found = TypeVar("Found")
Say = Callable[[str], object]

FORMAT = 1
_STEP = re.compile(r"(training|held_out)/(\d{1,9})")
_TOKENS = re.compile(r"tokens/(\d{1,9})/(\d{1,9})")


def run_id(path: Path) -> str:
    """The name of a run in addresses and in the page: it says nothing of the path, and holds no character of it."""
    return hashlib.sha256(str(path.resolve()).encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _silent(text: str) -> None:
    return


def page_data(
    runs: Sequence[Path],
    *,
    live: bool = False,
    seeds: bool = False,
    title: str | None = None,
    most_rows: int = MOST_ROWS,
    say: Say = _silent,
) -> Json:
    """The data of a page of these runs, with at most ``most_rows`` rows of metrics of each.

    ``say`` is told what is damaged, which the page does without. Raises DataError for a recipe that cannot be read,
    RecipeError for no run.
    """
    shown = [run_data(path, most_rows=most_rows, say=say) for path in runs]
    if len({run["name"] for run in shown}) < len(shown):
        for run in shown:
            run["name"] = run["path"]
    names = dict.fromkeys(name for run in shown for name in run["series"]["values"])
    return {
        "format": FORMAT,
        "live": live,
        "title": title or " · ".join(run["name"] for run in shown),
        "seeds": seeds,
        "runs": shown,
        "catalogue": {name: asdict(describe(name)) for name in names},
    }


def run_data(path: Path, *, most_rows: int = MOST_ROWS, say: Say = _silent) -> Json:
    """What the page shows of one run, without its completions; see `page_data`."""
    in_metrics: list[str] = []
    rows = RunFolder.open(path).read_metrics(say=in_metrics.append)
    return {**run_facts(path, rows, in_metrics, say=say), "series": series_data(rows, most_rows)}


def run_facts(
    path: Path, rows: Sequence[dict[str, float]], in_metrics: Sequence[str] = (), *, say: Say = _silent
) -> Json:
    """`run_data` without its series; ``rows`` are those of its metrics, ``in_metrics`` what is damaged in them."""
    folder = RunFolder.open(path)
    recipe = read_recipe(folder.recipe)
    in_samples: list[str] = []
    status = status_of(folder, recipe, rows)
    best = best_step(recipe, rows)
    paired = _if_sound(lambda: paired_changes(folder, rows), in_samples) or {}
    curves = _if_sound(lambda: evaluations(folder, rows, best), in_samples) or []
    on_disk = steps(folder, in_samples)
    for problem in (*in_metrics, *dict.fromkeys(in_samples)):
        say(problem)
    return {
        "id": run_id(path),
        "name": path.resolve().name,
        "path": str(path),
        "status": status,
        "glance": glance(
            recipe,
            folder.recipe.read_text(encoding="utf-8", errors="replace"),
            rows,
            starts=folder.starts.read(),
            changes=_changes(folder),
            best_step=best,
            paired=paired,
            status=status,
        ),
        "findings": findings(folder, rows, recipe=recipe, in_metrics=in_metrics, in_samples=in_samples),
        "evaluations": curves,
        "steps": on_disk,
    }


def _if_sound(read: Callable[[], Found], damage: list[str]) -> Found | None:
    """What ``read`` finds; None of a damaged file, and what is wrong with it is added to ``damage``."""
    try:
        return read()
    except DataError as error:
        damage.append(str(error))
        return None


def chunk(path: Path, name: str) -> Json:
    """A part of the page that is loaded when it is looked at: ``training/12``, ``held_out/0``, ``tokens/12/3``, or
    ``prompts``. Raises DataError if the run has none of that name, or its file is damaged."""
    folder = RunFolder.open(path)
    if name == "prompts":
        return prompts_chunk(folder)
    if match := _STEP.fullmatch(name):
        kind, step = match[1], int(match[2])
        table = table_of_step(folder, kind, step)
        if table is not None:
            return step_chunk(table, kind, step)
    if match := _TOKENS.fullmatch(name):
        step, row = int(match[1]), int(match[2])
        table = table_of_step(folder, "tokens", step)
        if table is not None and (found := tokens_chunk(table, step, row)) is not None:
            return found
    raise DataError(f"{path}: there is no {name}")


def table_of_step(folder: RunFolder, kind: str, step: int) -> pa.Table | None:
    """The samples of a step with the columns that its chunks of this kind need, and no others; None without samples."""
    files = files_of(folder, kind)
    return files.of_step(step, select_columns(kind)(files.columns_of_step(step)))


def files_of(folder: RunFolder, kind: str) -> SampleFiles:
    """Where the samples are that chunks of this kind are made of: ``training``, ``held_out`` or ``tokens``."""
    return folder.held_out_files if kind == "held_out" else folder.sample_files


def select_columns(kind: str) -> Callable[[Sequence[str]], Sequence[str]]:
    """What says which of a file's columns are read for chunks of this kind."""
    return columns_read if kind != "tokens" else lambda names: [name for name in names if name in TOKEN_COLUMNS]


def steps(folder: RunFolder, damage: list[str]) -> dict[str, Any]:
    """The steps whose completions are on disk: drawn for training, on held-out prompts, and with their tokens.

    A damaged file adds what is wrong with it to ``damage``.
    """
    drawn, held_out = folder.sample_files, folder.held_out_files
    return {
        "training": _if_sound(drawn.steps, damage) or [],
        "held_out": _if_sound(held_out.steps, damage) or [],
        "tokens": _if_sound(lambda: drawn.steps_with("token_ids"), damage) or [],
    }


def best_step(recipe: dict[str, Any], rows: Sequence[dict[str, float]]) -> int | None:
    """The step with the best value of ``checkpoint.best``, or else of the first of pass@1 and reward that there is."""
    named = at(recipe, "checkpoint.best")
    for name in (named,) if named else ("pass@1", "reward", "pair_accuracy", "loss"):
        key = f"held_out/{name}"
        measured = [(row[key], int(row["step"])) for row in rows if key in row]
        if measured:
            lowest = describe(key).direction == "down"
            value = (min if lowest else max)(value for value, _ in measured)
            return next(step for of_step, step in measured if of_step == value)
    return None


def status_of(folder: RunFolder, recipe: dict[str, Any], rows: Sequence[dict[str, float]]) -> str:
    """``running``, ``finished`` or ``stopped``."""
    if is_locked(folder.path):
        return "running"
    done = int(rows[-1]["step"]) if rows else 0
    planned = at(recipe, "training.steps")
    return "finished" if isinstance(planned, int) and done >= planned else "stopped"


def _changes(folder: RunFolder) -> list[str]:
    """What was changed while the run was stopped, a sentence for each."""
    return [
        f"from step {step + 1} on: {change.get('what', 'something changed')}"
        for step, changed in Changes(folder.path).all()
        for change in changed
    ]
