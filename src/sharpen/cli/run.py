"""``sharpen run``: train with progress, then print the results and their paths."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

import typer

from sharpen.cli.overrides import recipe_with
from sharpen.launch.handle import Run
from sharpen.launch.run import resume, start
from sharpen.recipe.loading import load_recipe
from sharpen.report.console import complain, safe_console
from sharpen.report.measured import before_and_after
from sharpen.report.page.at_end import made_at_end, report_after_error, report_at_end
from sharpen.report.plot import Stage, plot_run
from sharpen.report.progress import Console
from sharpen.report.table import before_after_table
from sharpen.runs.folder import RunFolder
from sharpen.system.signals import Stopped, exit_code


def start_run(recipe_path: str, overrides: Sequence[str], *, quiet: bool, trust_remote_code: bool) -> None:
    recipe = recipe_with(recipe_path, overrides)

    def go(console: Console) -> Run:
        return start(recipe, loggers=[console], say=console.say, trust_remote_code=trust_remote_code)

    _carry_out(go, recipe.run, recipe.training.steps, quiet)


def resume_run(folder: Path, *, quiet: bool, trust_remote_code: bool, accept_changes: bool) -> None:
    def go(console: Console) -> Run:
        return resume(
            folder,
            loggers=[console],
            say=console.say,
            trust_remote_code=trust_remote_code,
            accept_changes=accept_changes,
        )

    _carry_out(go, folder, load_recipe(RunFolder.open(folder).recipe).training.steps, quiet)


def _carry_out(go: Callable[[Console], Run], folder: Path, steps: int, quiet: bool) -> None:
    errors = safe_console(stderr=True, soft_wrap=True, highlight=False)
    try:
        with (
            report_after_error(folder, lambda text: errors.print(text)),
            Console(folder.name, total=steps, quiet=quiet) as console,
        ):
            run = go(console)
    except KeyboardInterrupt as interrupt:
        if not (folder / "recipe.yaml").is_file():
            errors.print("stopped before anything was written")
        else:
            errors.print(f"stopped; to continue from the latest checkpoint: sharpen run --resume {folder}")
        raise typer.Exit(exit_code(interrupt)) from None
    # After a scheduler's signal there is no time for a plot and a report.
    if run.finished or run.signum in (None, signal.SIGINT):
        _show(run)
    if not run.finished:
        errors.print(f"stopped before its last step; to continue: sharpen run --resume {run.path}")
        raise Stopped(run.signum or signal.SIGINT)


def _show(run: Run) -> None:
    """Print the held-out measures and the paths of what was written, then draw the run and write its report."""
    console = safe_console(soft_wrap=True, highlight=False)
    folder = RunFolder.open(run.path)
    recipe = load_recipe(folder.recipe)
    # What is damaged in them was said when the run was resumed.
    rows = folder.read_metrics(say=lambda text: None)
    before, after = before_and_after(rows)
    if before.measures:
        title = f"Held-out prompts, step {before.step} and step {after.step}"
        console.print(before_after_table(before.measures, after.measures, title))
    places = {"model": run.model}
    if rows:
        places["metrics"] = folder.metrics
    if any(folder.samples.glob("*.parquet")):
        places["samples"] = folder.samples
    if run.best is not None:
        places[f"best {recipe.checkpoint.best}"] = run.best
    width = max(map(len, (*places, "report")))

    def show(what: str, place: Path) -> None:
        console.print(f"{what:<{width}}  {place}")

    for what, place in places.items():
        show(what, place)
    if not rows:
        return
    stages, title = [Stage(recipe.method.name, rows)], str(run.path)
    picture = made_at_end(
        "the plot",
        lambda: plot_run(stages, run.path / "plot.png", before.measures, after.measures, title=title),
        complain,
    )
    if picture is not None:
        show("plot", picture)
    if (report := report_at_end(run.path, complain)) is not None:
        show("report", report)
