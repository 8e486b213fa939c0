"""``sharpen metrics``: the catalogue of what a run logs, one metric, or the tables of the docs."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer
from rich import box
from rich.table import Table
from rich.text import Text

from sharpen.errors import RecipeError
from sharpen.report.console import safe_console
from sharpen.runs.metric_catalogue import catalogue, find, metrics_tables
from sharpen.suggest import did_you_mean


def show_metrics(name: str | None, *, as_json: bool, markdown: bool) -> None:
    """Print all metrics, or one, which may also be the name in a run, such as ``held_out/math/pass@8_low``.

    Raises:
        RecipeError: an unknown name, with the nearest known one; options that do not go together.
    """
    if markdown and (as_json or name is not None):
        raise RecipeError("--markdown prints the tables of all metrics: leave out --json and the name")
    if markdown:
        typer.echo(metrics_tables(), nl=False)
    elif name is not None:
        _show_one(name, as_json=as_json)
    elif as_json:
        typer.echo(json.dumps({known: asdict(info) for known, info in catalogue().items()}, ensure_ascii=False))
    else:
        _show_all()


def _show_one(name: str, *, as_json: bool) -> None:
    known = catalogue()
    info = known.get(name) or find(name)
    if info is None:
        raise RecipeError(f"{name!r} is no metric of sharpen.{did_you_mean(name, known)} `sharpen metrics` lists them")
    if as_json:
        typer.echo(json.dumps({"name": name, **asdict(info)}, ensure_ascii=False))
        return
    console = safe_console(highlight=False)
    console.print(Text.assemble((name, "bold cyan"), f"   {info.title}"))
    better = {"up": "higher is better", "down": "lower is better", "none": ""}[info.direction]
    console.print(Text("; ".join(part for part in (info.unit, better) if part), style="dim"))
    console.print(Text(info.meaning))
    if info.normal:
        console.print(Text(f"Normal: {info.normal}"))


def _show_all() -> None:
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("metric", "unit", "meaning"):
        table.add_column(heading)
    group = ""
    for name, info in catalogue().items():
        if info.group != group:
            group = info.group
            table.add_section()
            table.add_row(Text(group, style="bold"))
        table.add_row(Text(name, style="cyan"), Text(info.unit), Text(info.meaning))
    console = safe_console(highlight=False)
    console.print(table)
    console.print(Text("One metric, and what is normal: sharpen metrics entropy"))
