"""``sharpen methods``: the unified table, one method with its settings, or the page of the docs."""

from __future__ import annotations

import json
from collections.abc import Sequence

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sharpen.describe import Setting, about, default_text, paragraphs
from sharpen.errors import RecipeError
from sharpen.methods import METHODS, Method, resolve_method
from sharpen.methods.describe import (
    PEERS,
    all_differences,
    by_owner,
    called,
    parent,
    row,
    settings,
    to_json,
)
from sharpen.methods.page import LEGEND, methods_page
from sharpen.report.console import safe_console


def show_methods(name: str | None, *, as_json: bool, markdown: bool) -> None:
    """Print all methods, or one.

    Raises:
        RecipeError: an unknown name, with the nearest known one; options that do not go together.
    """
    if markdown and (as_json or name is not None):
        raise RecipeError("--markdown prints the whole page of the methods: leave out --json and the name")
    method = None if name is None else _method(name)
    if as_json:
        said = [to_json(m) for m in METHODS.values()] if method is None else to_json(method)
        typer.echo(json.dumps(said, ensure_ascii=False))
    elif markdown:
        typer.echo(methods_page(), nl=False)
    elif method is None:
        _show_all(safe_console(highlight=False))
    else:
        _show_one(safe_console(highlight=False), method)


def _method(name: str) -> type[Method]:
    try:
        return type(resolve_method(name))
    except ValueError as error:
        raise RecipeError(str(error)) from error


def _show_all(console: Console) -> None:
    table = Table(box=None, padding=(0, 2, 1, 0))
    table.add_column("method", min_width=max(map(len, METHODS)))
    for head in ("source\n× reward", "advantage\n× loss", "gradient coefficient"):
        table.add_column(Text(head))
    for name, method in METHODS.items():
        said = method.unified_view
        table.add_row(
            Text.assemble((name, "bold cyan"), "\n", (said.paper, "dim")),
            Text(f"{said.source}\n× {said.reward}"),
            Text(f"{said.advantage}\n× {said.loss}"),
            Text(said.gradient_coefficient),
        )
    console.print(table)
    console.print()
    for sign, meaning in LEGEND:
        console.print(Text.assemble((f"{sign:<6}", "bold"), meaning))
    console.print(Text("\nOne method with its settings: sharpen methods grpo"))


def _show_one(console: Console, method: type[Method]) -> None:
    above = parent(method)
    console.print(Text.assemble((method.name, "bold cyan"), f"   a form of {above.name}" if above else ""))
    console.print(Padding(Text(paragraphs(about(method))), (1, 2)))
    sentence = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for part, text in list(row(method).items())[1:]:
        sentence.add_row(Text(part.replace("_", " "), style="bold"), Text(text))
    console.print(sentence)
    found = settings(method)
    if found:
        console.print()
        console.print(_settings_table(found))
    if said := all_differences(method):
        console.print(f"\nOther libraries ({PEERS}):")
        for owner, lines in said.items():
            console.print(Text(called(owner), style="bold"))
            for line in lines:
                console.print(Padding(Text(line.replace("`", "")), (0, 2)))


def _settings_table(found: Sequence[Setting]) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("setting", no_wrap=True)
    table.add_column("default", max_width=24)
    table.add_column("meaning")
    for owner, its in by_owner(found).items():
        table.add_row(Text(called(owner), style="bold"))
        for s in its:
            meaning = Text.assemble(s.text, "\n", (s.values, "dim"))
            table.add_row(Text(s.name, style="cyan"), Text(default_text(s)), meaning)
    return table
