"""``sharpen run --seeds``: the runs of several seeds with progress, then what they say together."""

from __future__ import annotations

import json
import signal
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import typer

from sharpen.cli.overrides import recipe_with
from sharpen.evaluation.student_t import mean_interval
from sharpen.pipelines.seeds import Outcome, prepare, run_seeds
from sharpen.recipe.loading import load_recipe
from sharpen.report.console import complain, safe_console
from sharpen.report.page.at_end import made_at_end, report_at_end
from sharpen.report.plot import Stage, plot_run
from sharpen.report.progress import Console
from sharpen.report.seeds import INTERVAL, mean_rows, means_table, over_seeds, values_table
from sharpen.report.series import HELD_OUT
from sharpen.runs.folder import read_metrics
from sharpen.runs.lock import run_lock
from sharpen.runs.seeds import SeedsFolder
from sharpen.system.files import named_write_errors, write_text
from sharpen.system.signals import Stopped

SHOWN = ("loss", "reward/mean", "held_out/pass@1")
"""The metrics in the progress of a seed; the rest is in the output of its run."""


class _Progress(Console):
    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        super().log(step, {name: metrics[name] for name in SHOWN if name in metrics})


def start_seeds(
    recipe_path: str, overrides: Sequence[str], count: int, *, at_once: int, quiet: bool, trust_remote_code: bool
) -> None:
    recipe = recipe_with(recipe_path, overrides)
    with Console("seeds", quiet=quiet, bar=False) as console, run_lock(recipe.run, console.say) as locked:
        folder = prepare(recipe, count, locked=locked)
        _carry_out(folder, at_once, quiet, trust_remote_code)


def resume_seeds(
    path: Path, *, at_once: int, quiet: bool, trust_remote_code: bool, accept_changes: bool = False
) -> None:
    with Console("seeds", quiet=quiet, bar=False) as console, run_lock(path, console.say):
        _carry_out(SeedsFolder(path), at_once, quiet, trust_remote_code, accept_changes)


def _carry_out(
    folder: SeedsFolder, at_once: int, quiet: bool, trust_remote_code: bool, accept_changes: bool = False
) -> None:
    steps = load_recipe(folder.recipe).training.steps
    with ExitStack() as shown:
        latest = shown.enter_context(Console("seeds", quiet=quiet, bar=False))

        def logger(seed: int) -> Console:
            nonlocal latest
            latest = shown.enter_context(_Progress(f"seed {seed}", total=steps, quiet=quiet, bar=at_once == 1))
            return latest

        outcome = run_seeds(
            folder,
            at_once=at_once,
            logger=logger,
            # A bar has to move down for a message, so its own console says it.
            say=lambda text: latest.say(text),
            trust_remote_code=trust_remote_code,
            accept_changes=accept_changes,
        )
    errors = safe_console(stderr=True, soft_wrap=True, highlight=False)
    for seed, code in outcome.failed.items():
        errors.print(
            f"seed {seed} failed with exit code {code}: {_last_line(folder.output(seed))}\n"
            f"its whole output: {folder.output(seed)}",
            style="red",
        )
    if outcome.signum is None and outcome.finished:
        _show(folder, outcome)
    # After a scheduler's signal there is no time for it.
    if outcome.signum in (None, signal.SIGINT) and (report := report_at_end(folder.path, complain)) is not None:
        safe_console(soft_wrap=True, highlight=False).print(f"report  {report}")
    if outcome.signum is not None:
        errors.print(f"stopped; to continue all seeds: sharpen run --resume {folder.path}")
        raise Stopped(outcome.signum)
    if outcome.failed:
        errors.print(
            f"{len(outcome.failed)} of {len(folder.seeds())} seeds failed; to continue them: "
            f"sharpen run --resume {folder.path}",
        )
        raise typer.Exit(next(iter(outcome.failed.values())))


def _show(folder: SeedsFolder, outcome: Outcome) -> None:
    """Write the measures of the finished seeds, print them and draw them."""
    seeds = outcome.finished
    runs = [read_metrics(folder.run(seed)) for seed in seeds]
    measures = over_seeds(runs)
    written = {
        "seeds": seeds,
        "unfinished": [seed for seed in folder.seeds() if seed not in seeds],
        "interval": INTERVAL,
        "measures": {name: values.to_json() for name, values in measures.items()},
    }
    with named_write_errors(folder.summary, "the summary of the seeds"):
        write_text(folder.summary, json.dumps(written, indent=1) + "\n")
    means = {name.removeprefix(HELD_OUT): v for name, v in measures.items() if name.startswith(HELD_OUT) and v.before}
    console = safe_console(soft_wrap=True, highlight=False)
    console.print(means_table(measures, seeds))
    if len(seeds) > 1:
        console.print(values_table(measures, seeds))
    for what, place in {"runs": folder.run(seeds[0]).with_name("seed_*"), "values": folder.summary}.items():
        console.print(f"{what:<6}  {place}")

    def draw() -> Path:
        return plot_run(
            [Stage(load_recipe(folder.recipe).method.name, mean_rows(runs))],
            folder.plot,
            {name: mean_interval(v.before) for name, v in means.items() if v.before},
            {name: mean_interval(v.after) for name, v in means.items()},
            title=f"{folder.path}, mean of {len(seeds)} seed{'s' * (len(seeds) > 1)}",
        )

    if (plot := made_at_end("the plot", draw, complain)) is not None:
        console.print(f"plot    {plot}")


def _last_line(output: Path) -> str:
    lines = [line for line in output.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    return lines[-1].strip() if lines else "it printed nothing"
