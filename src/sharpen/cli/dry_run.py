"""``sharpen run --dry-run``: what a run would do, as tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from sharpen.cli.overrides import recipe_with
from sharpen.cli.spans import shown
from sharpen.describe import as_text
from sharpen.launch.dry_run import Data, DryRun, Lengths, dry_resume, dry_run
from sharpen.report.console import safe_console
from sharpen.system.memory import GIB
from sharpen.training.memory import ExpectedMemory, total
from sharpen.types import Group

SHOWN_GROUPS = 2
SHOWN_COMPLETIONS = 2
NOT_MODELLED = (
    "Not counted: the replies of tools and other turns, what a reward of your own takes, and processes of the sandbox."
)
NOT_MODELLED_ON_GPU = (
    "On a GPU, the estimate has not been compared with measurements; captured graphs, compiled kernels and what the "
    "allocator cannot use again are not counted."
)


def show_dry_run(
    recipe: str | None,
    overrides: Sequence[str],
    *,
    resume: Path | None,
    trust_remote_code: bool,
    accept_changes: bool = False,
) -> None:
    console = safe_console(soft_wrap=True, highlight=False)

    def say(text: str) -> None:
        console.print(Text(text, style="yellow"))

    found: DryRun | None
    if resume is not None:
        found = dry_resume(resume, say=say, trust_remote_code=trust_remote_code, accept_changes=accept_changes)
    else:
        found = dry_run(recipe_with(str(recipe), overrides), say=say, trust_remote_code=trust_remote_code)
    for title, lines in _sections(found) if found is not None else ():
        console.print(Text(f"\n{title}", style="bold"))
        for line in lines:
            console.print(line)
    console.print(Text("\nNothing was trained, nothing was written.", style="bold"))


def _sections(found: DryRun) -> Iterable[tuple[str, Iterable[Any]]]:
    yield "Settings that differ from their defaults", [_names(found.settings)]
    if found.chosen:
        yield "Chosen for this machine, model and data", [_names(found.chosen)]
    yield f"Method {found.recipe.method.name}", _method(found)
    yield "Data, lengths in tokens", [_data(found.data)]
    yield "Work", [_names(_work(found))]
    yield f"Memory expected at the peak, on {found.device}", _memory(found)
    yield "Written to", [_names(_writes(found))]
    yield from _first(found)


def _names(values: Mapping[str, Any]) -> Table:
    table = _table()
    for name, value in values.items():
        table.add_row(Text(name, style="cyan"), Text(as_text(value)))
    return table


def _table() -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0), show_header=False)
    table.add_column("", no_wrap=True)
    # A path is worth several lines: none of it is cut off.
    table.add_column("", overflow="fold")
    return table


def _method(found: DryRun) -> Iterable[Any]:
    view = found.method
    yield _names(
        {
            "source": view.source,
            "reward": view.reward,
            "advantage": view.advantage,
            "loss": view.loss,
            "gradient coefficient": view.gradient_coefficient,
            "paper": view.paper,
        }
    )
    yield Text("with")
    yield _names(found.method_settings)
    for name, initial in found.coefficients.items():
        yield Text(f"{name} starts at {initial:g} and may change during training, as the settings say")


def _data(data: Sequence[Data]) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0))
    for column in ("", "", "least", "median", "most"):
        table.add_column(column, justify="left" if column == "" else "right")
    for of in data:
        table.add_row(Text(of.name, style="cyan"), f"{of.rows} rows")
        for what, lengths in (("prompts", of.prompts), ("completions", of.completions)):
            if lengths is not None:
                table.add_row("", f"{lengths.count} {what}", *_lengths(lengths))
    return table


def _lengths(lengths: Lengths) -> tuple[str, str, str]:
    return str(lengths.least), f"{lengths.median:g}", str(lengths.most)


def _work(found: DryRun) -> dict[str, str]:
    work, size = found.work, found.first.group_size
    of_each = f" × {size} completions" if size and not found.first.before_training else ""
    said = {}
    if work.sampled_first:
        said["before the first step"] = f"{work.sampled_first} completions are sampled, {size} for each prompt"
    said["a step"] = f"{work.prompts_per_step} prompts{of_each}: {work.completions_per_step} completions"
    said["the run"] = f"{work.steps} steps, {work.updates} optimizer updates"
    if work.evaluations:
        answers = f" × {work.answers_each} answers" if work.answers_each else ""
        said["evaluations"] = f"{work.evaluations}, on {work.held_out} held-out rows{answers}"
    return said


def _memory(found: DryRun) -> Iterable[Any]:
    memory = found.memory
    table = Table(box=None, padding=(0, 3, 0, 0), show_header=False)
    table.add_column("")
    table.add_column("GiB", justify="right")
    for part in memory.always:
        table.add_row(part.name, _gib(part.bytes))
    for name, parts in memory.phases.items():
        at_peak = " (the largest)" if name == memory.peak_phase and len(memory.phases) > 1 else ""
        table.add_row(Text(f"while {name}{at_peak}", style="cyan"), Text(_gib(total(parts)), style="cyan"))
        for part in parts:
            table.add_row(f"  {part.name}", _gib(part.bytes))
    if memory.heap:
        table.add_row("free and not usable", _gib(memory.heap))
    table.add_row(Text("in all", style="bold"), Text(_gib(memory.total), style="bold"))
    yield table
    yield from _beside(found, memory)


def _beside(found: DryRun, memory: ExpectedMemory) -> Iterable[Text]:
    if found.machine is not None:
        has, free = _gib(found.machine.total), _gib(found.machine.available)
        fits = memory.total <= found.machine.total
        verdict = "" if fits else ": more than there is; lower training.tokens_per_microbatch, or use model.lora"
        yield Text(f"{found.device} has {has} GiB, {free} of it free now{verdict}", style="" if fits else "red")
    yield Text(
        "This is for the longest prompts of the data and completions as long as the recipe allows, and comes on top of "
        f"what Python takes once its libraries are imported. {NOT_MODELLED}"
    )
    if found.device != "cpu":
        yield Text(NOT_MODELLED_ON_GPU)


def _writes(found: DryRun) -> dict[str, str]:
    places = {what: str(place) for what, place in found.writes.items()}
    places["checkpoints"] += f", {_gib(found.checkpoint_bytes)} GiB each"
    return places


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"


def _first(found: DryRun) -> Iterable[tuple[str, Iterable[Any]]]:
    first = found.first
    what = "The prompts that are answered before the first step" if first.before_training else "The next batch"
    if found.step == 0 and not first.before_training:
        what = "The first batch"
    note = "; what is trained on is between ⟦ and ⟧" if any(group.trajectories for group in first.groups) else ""
    yield f"{what}, as the model sees it{note}", _groups(found, first.groups)
    if first.mixed:
        yield "Of the second source", _groups(found, first.mixed)


def _groups(found: DryRun, groups: Sequence[Group]) -> Iterable[Text]:
    for number, group in enumerate(groups[:SHOWN_GROUPS], start=1):
        yield Text(
            f"{number} of {len(groups)}: {group.prompt.id}, a prompt of {len(group.prompt.token_ids)} tokens",
            style="cyan",
        )
        yield shown(found.first.prompt(group))
        completions = list(found.first.completions(group))
        for place, (completion, trajectory) in enumerate(zip(completions, group.trajectories, strict=True), start=1):
            if place > SHOWN_COMPLETIONS:
                yield Text(f"and {len(completions) - SHOWN_COMPLETIONS} more completions", style="cyan")
                break
            grade = "" if trajectory.score is None or trajectory.score.total is None else trajectory.score.total
            graded = "" if grade == "" else f", graded {grade:g}"
            trained = sum(trajectory.loss_mask)
            yield Text(
                f"completion {place} of {len(completions)}: {len(trajectory.token_ids)} tokens, {trained} trained "
                f"on{graded}",
                style="cyan",
            )
            yield shown(completion)
    if len(groups) > SHOWN_GROUPS:
        yield Text(f"and {len(groups) - SHOWN_GROUPS} more", style="cyan")
