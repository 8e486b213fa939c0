"""Terminal tables of measures before and after training, and example completions.

The functions return renderables for `rich.console.Console.print`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from sharpen.evaluation.estimators import Estimate
from sharpen.report.console import printable_text
from sharpen.runs.metric_catalogue import describe_measure
from sharpen.system.printable import printable

_MISSING = "–"


@dataclass(frozen=True, slots=True)
class Answer:
    """A completion and whether it is right."""

    text: str
    right: bool


@dataclass(frozen=True, slots=True)
class Example:
    """A problem with completions from before and after training; ``expected`` is None if no single answer exists."""

    prompt: str
    expected: str | None
    before: Sequence[Answer]
    after: Sequence[Answer]


def before_after_table(
    before: Mapping[str, Estimate],
    after: Mapping[str, Estimate],
    title: str = "Before and after",
    plain: Collection[str] | None = None,
) -> Table:
    """One row per measure, with its interval and the change.

    Shares are shown in percent with the change in percentage points; the measures in ``plain``, by default all that
    are no shares, unscaled. Rows follow the order of ``before``, then ``after``.
    """
    measures = list(dict.fromkeys([*before, *after]))
    plain = plain_measures(measures) if plain is None else plain
    table = Table(title=printable_text(title), box=box.SIMPLE_HEAD, title_style="bold", title_justify="left")
    table.add_column("measure")
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right")
    for measure in measures:
        old, new = before.get(measure), after.get(measure)
        percent = measure not in plain
        table.add_row(
            printable_text(measure),
            Text(format_estimate(old, percent)),
            Text(format_estimate(new, percent)),
            _change(measure, old, new, percent),
        )
    table.caption = "in brackets: 95 % intervals over prompts"
    table.caption_justify = "left"
    return table


def measures_table(measures: Mapping[str, Estimate]) -> Table:
    """One row per measure with its interval."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("measure")
    table.add_column(Text("value  [95 % interval over prompts]"), justify="right")
    plain = plain_measures(measures)
    for measure, estimate in measures.items():
        table.add_row(printable_text(measure), Text(format_estimate(estimate, measure not in plain)))
    return table


def plain_measures(measures: Iterable[str]) -> frozenset[str]:
    """The measures of an evaluation that are not shares: rewards, lengths, losses, scores, and what is not known.

    A data source's are under its name, as in ``math/length``.
    """
    return frozenset(measure for measure in measures if not describe_measure(measure).share)


def format_estimate(estimate: Estimate | None, percent: bool = True) -> str:
    """``85.2 %  [83.0, 87.1]``, without brackets where there is no interval."""
    if estimate is None or math.isnan(estimate.mean):
        return _MISSING
    scale, unit = (100.0, " %") if percent else (1.0, "")
    # One decimal is too coarse for a reward between 0 and 1.
    digits = 1 if percent or abs(estimate.mean) >= 10 else 3
    text = f"{estimate.mean * scale:.{digits}f}{unit}"
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return text
    # Equal widths keep the columns aligned.
    low, high = f"{estimate.low * scale:.{digits}f}", f"{estimate.high * scale:.{digits}f}"
    return f"{text}  [{low:>5}, {high:>5}]"


def examples_panel(examples: Sequence[Example], title: str = "Examples", max_chars: int = 200) -> Panel:
    """Each problem with its completions before and after side by side; ✓ marks the right ones, ✗ the others."""
    parts: list[RenderableType] = []
    for number, example in enumerate(examples):
        if number:
            parts.append(Text())
        parts.append(Text(_printable(example.prompt.strip(), max_chars), style="bold"))
        if example.expected is not None:
            parts.append(Text(f"expected: {_printable(example.expected, max_chars)}", style="dim"))
        grid = Table(box=None, padding=(0, 2, 0, 0), expand=True)
        grid.add_column("before", ratio=1, header_style="dim")
        grid.add_column("after", ratio=1, header_style="dim")
        for row in range(max(len(example.before), len(example.after))):
            grid.add_row(_answer(example.before, row, max_chars), _answer(example.after, row, max_chars))
        parts.append(grid)
    return Panel(Group(*parts), title=printable_text(title), title_align="left", box=box.ROUNDED)


def _change(measure: str, old: Estimate | None, new: Estimate | None, percent: bool) -> Text:
    if old is None or new is None or math.isnan(old.mean) or math.isnan(new.mean):
        return Text(_MISSING)
    digits = 1 if percent or abs(new.mean) >= 10 else 3
    change = round((new.mean - old.mean) * (100.0 if percent else 1.0), digits)
    direction = describe_measure(measure).direction
    # A longer completion is neither better nor worse; a share with a name of its own is one of right answers.
    if not change or (direction == "none" and not percent):
        style = ""
    else:
        style = "green" if (change < 0) == (direction == "down") else "red"
    return Text(f"{change:+.{digits}f}" if change else "0.0", style=style)


def _answer(answers: Sequence[Answer], row: int, max_chars: int) -> Text:
    if row >= len(answers):
        return Text()
    answer = answers[row]
    mark = Text("✓ ", style="bold green") if answer.right else Text("✗ ", style="bold red")
    text = _printable(answer.text.strip(), max_chars) or "(empty)"
    return mark.append(text, style="default" if answer.right else "dim")


def _printable(text: str, max_chars: int) -> str:
    text = printable(text)
    return text if len(text) <= max_chars else text[: max_chars - 1] + "…"
