"""``sharpen reward check``: what a recipe's reward accepts, as tables and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sharpen.cli.overrides import recipe_with
from sharpen.launch.reward_check import check_recipe
from sharpen.report.console import printable_text, safe_console
from sharpen.rewards.checking.findings import worth
from sharpen.rewards.checking.probe import Trial
from sharpen.rewards.checking.report import SLOW_S, CheatResult, RewardReport

SHOWN = 3
"""How many failures of each kind are shown."""

EXAMPLE_CHARACTERS = 60


def check_reward(recipe: str, overrides: Sequence[str], *, reference: str | None, trust_remote_code: bool) -> bool:
    """Check the reward of each data source, print the reports, and return whether all are sound.

    Raises:
        SharpenError: the recipe, its data or its reward cannot be used.
    """
    loaded = recipe_with(recipe, overrides)
    if reference is not None:
        settings = loaded.reward_check.model_copy(update={"reference": reference})
        loaded = loaded.model_copy(update={"reward_check": settings})
    # A user's reward may print; standard output is for the result.
    with (
        redirect_stdout(sys.stderr),
        safe_console(stderr=True).status(printable_text(f"the reward of {recipe}")) as status,
    ):
        reports = check_recipe(
            loaded, trust_remote_code=trust_remote_code, say=lambda text: status.update(printable_text(text))
        )
    console = safe_console(highlight=False)
    for place, report in enumerate(reports):
        if place:
            console.print()
        show(report, console)
    return all(report.ok for report in reports)


def show(report: RewardReport, console: Console) -> None:
    """Print a report."""
    console.print(
        Text.assemble(
            (f"reward {report.reward}", "bold"),
            f" on {report.rows} rows of {report.data}; a full reward is {report.threshold:g} or more",
        )
    )
    console.print()
    for line in _references(report):
        console.print(line, soft_wrap=True)
    console.print()
    console.print(_accepted([result for result in report.results if result.accepted]))
    refused = [result for result in report.results if result.tried and not result.accepted]
    if refused:
        named = ", ".join(_with_highest(result, report.threshold) for result in refused)
        console.print(Text(f"\nnever accepted: {named}", style="dim"))
    untried = [result.cheat.name for result in report.results if not result.tried]
    if untried:
        console.print(Text("cannot be tried here: " + ", ".join(untried), style="dim"))
    console.print()
    for line in (*_failures("raised", report.errors), *_failures("would stop a run", report.stops), *_timing(report)):
        console.print(line, soft_wrap=True)
    console.print()
    if report.ok:
        console.print(Text("The reward is sound, as far as this check can tell.", style="green"))
    for finding in report.findings:
        console.print(Text(f"✗ {finding}", style="red"), soft_wrap=True)


def _references(report: RewardReport) -> Iterator[Text]:
    references = report.references
    if references.origin is None:
        yield Text("references: none are known")
        return
    yield Text(f"references: {references.full} of {references.tried} get a full reward ({references.origin})")
    for trial in references.failed[:SHOWN]:
        yield Text(f"  {trial.where}: {_excerpt(trial.text)}: {worth(trial)}", style="red")


def _accepted(results: Sequence[CheatResult]) -> Table | Text:
    if not results:
        return Text("No wrong answer and no cheat was accepted on any row.")
    table = Table(box=None, padding=(0, 2, 0, 0), title="Accepted, but not right", title_justify="left")
    table.add_column("cheat", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    table.add_column("what it is, and an example")
    for result in results:
        verdict, style = _verdict(result)
        assert result.example is not None
        example = f"{result.example.where}: {_excerpt(result.example.text)}"
        table.add_row(
            Text(result.cheat.name, style=style),
            f"{result.accepted}/{result.tried}",
            Text(verdict, style=style),
            Text.assemble(result.cheat.why, "\n", (example, "dim")),
        )
    return table


def _verdict(result: CheatResult) -> tuple[str, str]:
    if not result.passes:
        return "by luck", "dim"
    return ("allowed", "yellow") if result.allowed else ("passes", "red")


def _with_highest(result: CheatResult, threshold: float) -> str:
    partial = result.highest is not None and 0 < result.highest < threshold
    return f"{result.cheat.name} (up to {result.highest:.3g})" if partial else result.cheat.name


def _failures(what: str, trials: Sequence[Trial]) -> Iterator[Text]:
    if trials:
        yield Text(f"{what}: {len(trials)} completions", style="yellow")
    for trial in trials[:SHOWN]:
        yield Text(f"  {trial.where}: {_excerpt(trial.text)}: {worth(trial)}", style="yellow")


def _timing(report: RewardReport) -> Iterator[Text]:
    timing = report.timing
    yield Text(
        f"time: {timing.median_s * 1000:.3g} ms a completion (median), "
        f"{timing.slowest.seconds * 1000:.3g} ms at worst, "
        f"{timing.per_s:,.0f} completions per second ({timing.completions} scored)"
    )
    if timing.slow:
        slowest = timing.slowest
        yield Text(f"  slow, over {SLOW_S:g} s: {slowest.where}: {_excerpt(slowest.text)}", style="yellow")


def _excerpt(text: str) -> str:
    shown = text if len(text) <= EXAMPLE_CHARACTERS else f"{text[: EXAMPLE_CHARACTERS - 1]}…"
    return f"{shown!r}" + (f" ({len(text):,} characters)" if len(text) > EXAMPLE_CHARACTERS else "")
