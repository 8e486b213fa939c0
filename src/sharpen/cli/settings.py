"""``sharpen settings``: what a recipe can set."""

from __future__ import annotations

import json
from collections.abc import Iterable

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sharpen.describe import Setting, default_text, only_text, paragraphs, settings_table
from sharpen.errors import RecipeError
from sharpen.methods import METHODS
from sharpen.recipe.describe import Part, find, methods, rewards, sections
from sharpen.report.console import safe_console
from sharpen.rewards.kinds import REWARDS


def show_settings(name: str | None, *, as_json: bool, markdown: bool) -> None:
    """Print all sections, or what has this name.

    Raises:
        RecipeError: an unknown name, with the nearest known one; options that do not go together.
    """
    if as_json and markdown:
        raise RecipeError("give --json or --markdown, not both")
    if as_json:
        parts = (*sections(), *methods(), *rewards()) if name is None else find(name)
        typer.echo(json.dumps([part.to_json() for part in parts], ensure_ascii=False))
        return
    parts = sections() if name is None else find(name)
    if markdown:
        typer.echo("\n".join(f"## `{part.name}`\n\n{settings_table(part.settings)}" for part in parts), nl=False)
        return
    console = safe_console(highlight=False)
    for part in parts:
        _show(console, part)
    if name in (None, "method"):
        console.print(Text(f"Methods: {', '.join(METHODS)}"))
    if name in (None, "reward"):
        console.print(Text(f"Rewards: {', '.join(REWARDS)}"))
    if name in (None, "method", "reward"):
        console.print(Text("\nThe settings of a section, a method or a reward: sharpen settings NAME"))


def _show(console: Console, part: Part) -> None:
    console.print(Text.assemble((part.name, "bold cyan"), f"   {part.kind}"))
    said = "\n\n".join(text for text in (paragraphs(part.about), only_text(part.only)) if text)
    if said:
        console.print(Padding(Text(said.replace("``", "`")), (0, 2, 1, 2)))
    console.print(_table(part.settings))
    console.print()


def _table(found: Iterable[Setting]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("setting", no_wrap=True)
    table.add_column("default", max_width=24)
    table.add_column("meaning")
    for setting in found:
        meaning = Text.assemble(setting.text, "\n", (setting.values, "dim"))
        table.add_row(Text(setting.name, style="cyan"), Text(default_text(setting)), meaning)
    return table
