"""``sharpen data check``: what a recipe's data becomes, as text and an exit code."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sharpen.cli.overrides import recipe_with
from sharpen.cli.spans import shown
from sharpen.launch.data_check import check_data
from sharpen.launch.data_report import CheckedRows, DataReport, ShownRow, TokenCounts
from sharpen.report.console import printable_text, safe_console

SHOWN_COMPLETIONS = 2
"""Of each row that is shown."""


def check(recipe: str, overrides: Sequence[str], *, show: int, trust_remote_code: bool) -> bool:
    """Check the data of a recipe, print what it becomes, and return whether a run can read every row.

    Raises:
        SharpenError: the recipe, a file or the tokenizer cannot be used.
    """
    loaded = recipe_with(recipe, overrides)
    with safe_console(stderr=True).status(printable_text(f"the data of {recipe}")):
        report = check_data(loaded, show=show, trust_remote_code=trust_remote_code)
    _show(report, safe_console(highlight=False, soft_wrap=True))
    return report.ok


def _show(report: DataReport, console: Console) -> None:
    for part in report.parts:
        console.print(Text.assemble((part.name, "bold"), f", {part.rows} rows, {part.use}"))
        for note in part.notes:
            console.print(note)
        for row in part.shown:
            _show_row(row, console)
        console.print()
        if part.prompts is not None:
            console.print(_counts(part))
        if part.split:
            console.print(f"{part.split} completions are trained as several samples: the template renders turns anew")
        if part.dropped:
            console.print(f"{part.dropped} rows are left out as too long for the context of {report.context} tokens")
        for doubt in part.doubts:
            console.print(Text(f"looks wrong: {doubt}", style="yellow"))
        for error in part.errors:
            console.print(Text(f"error: {error}", style="red"))
        if part.unread > len(part.errors):
            console.print(Text(f"{part.unread} of {part.rows} rows cannot be read", style="red"))
        console.print()
    verdict = "Every row can be read." if report.ok else "A run would stop at the rows named above."
    marked = any(row.completions for part in report.parts for row in part.shown)
    console.print(Text(f"{verdict}{' What is trained on is between ⟦ and ⟧.' if marked else ''}", style="bold"))


def _show_row(row: ShownRow, console: Console) -> None:
    console.print(Text(f"\n{row.where}", style="cyan"))
    if not row.completions:
        console.print(shown(row.prompt))
    for number, (grade, samples) in enumerate(row.completions[:SHOWN_COMPLETIONS], start=1):
        if len(row.completions) > 1:
            graded = "" if grade is None else f", graded {grade:g}"
            console.print(Text(f"completion {number} of {len(row.completions)}{graded}", style="cyan"))
        for place, sample in enumerate(samples, start=1):
            if len(samples) > 1:
                console.print(
                    Text(f"sample {place} of {len(samples)}, {sample.trained} tokens trained on", style="cyan")
                )
            console.print(Text.assemble(shown(sample.prefix), shown(sample.completion)))


def _counts(part: CheckedRows) -> Table:
    table = Table(box=None, padding=(0, 3, 0, 0))
    for column in ("tokens", "", "least", "median", "95 %", "most", "in all"):
        table.add_column(column, justify="left" if column == "tokens" else "right")
    lengths: list[tuple[str, TokenCounts | None]] = [
        ("prompts", part.prompts),
        ("completions", part.completions),
        ("trained on", part.trained),
    ]
    for name, counts in lengths:
        if counts is not None:
            table.add_row(
                name,
                str(counts.count),
                str(counts.least),
                f"{counts.median:g}",
                str(counts.p95),
                str(counts.most),
                f"{counts.total:,}",
            )
    return table
