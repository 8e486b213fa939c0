"""``sharpen init``: a first recipe for somebody's data, and what was found in it."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from pathlib import Path

from rich.console import Console
from rich.text import Text

from sharpen.report.console import printable_text, safe_console
from sharpen.scaffold.findings import SAID
from sharpen.scaffold.first_recipe import FirstRecipe, write_first_recipe
from sharpen.scaffold.header import columns_used, next_commands


def write_recipe(data: str, *, model: str | None, file: Path | None) -> None:
    """Write the recipe and print a summary.

    Raises:
        SharpenError: the data cannot be used, or the file exists.
    """
    # Scripts of a data set may print; standard output is for the result.
    with redirect_stdout(sys.stderr), safe_console(stderr=True).status(printable_text(f"looking at {data}")):
        written = write_first_recipe(data, model=model, file=file)
    _show(written, safe_console(highlight=False, soft_wrap=True))


def _show(written: FirstRecipe, console: Console) -> None:
    choices, draft = written.choices, written.draft
    source = choices.source
    console.print(Text(f"{source.train}: {len(source.rows):,} rows, {SAID[choices.findings.kind]}"))
    uses = columns_used(choices)
    width = max(map(len, uses))
    for column, use in uses.items():
        console.print(Text(f"  {column:<{width}}  {use}"))
    console.print(Text(f"{written.file}: {_choice(written)}", style="bold"))
    for doubt in draft.unsure:
        console.print(Text(f"  unsure: {doubt}", style="yellow"))
    if draft.missing is not None:
        console.print(Text(draft.missing, style="yellow"))
    commands = next_commands(choices, str(written.file))
    longest = max(map(len, commands))
    console.print("\nnext:" if draft.missing is None else "\nthen:")
    for command, why in commands.items():
        console.print(Text(f"  {command:<{longest}}  {why}"))


def _choice(written: FirstRecipe) -> str:
    """The method, the reward and how it did on the references."""
    choices, references = written.choices, written.references
    parts = [f"{choices.method} of {choices.model.name}"]
    if choices.reward is not None:
        parts.append(f"reward {choices.reward.settings['name']}")
    if references is not None and references.origin is not None:
        parts.append(f"{references.full} of {references.tried} reference answers get a full reward")
    measured = "measured on held-out rows" if choices.source.held_out_rows is not None else "no held-out rows"
    return ", ".join([*parts, measured])
