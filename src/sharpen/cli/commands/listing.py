"""Commands that list what a recipe can name and set."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from sharpen.report.console import safe_console


def methods(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Show this method and its settings.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the page of the docs and nothing else.")] = False,
) -> None:
    """List the methods, or show one with its equation and settings."""
    from sharpen.cli.methods import show_methods

    show_methods(name, as_json=json, markdown=markdown)


def metrics(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="Explain this metric, as a run names it.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the tables of the docs and nothing else.")
    ] = False,
) -> None:
    """List the metrics that a run logs, or explain one: unit, meaning and what is normal."""
    from sharpen.cli.metrics import show_metrics

    show_metrics(name, as_json=json, markdown=markdown)


def settings(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="A section (rollout, model.lora), a method, a reward, or one setting."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON and nothing else.")] = False,
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the tables in Markdown and nothing else.")
    ] = False,
) -> None:
    """List what a recipe can set: values, default, meaning, and when a setting has an effect."""
    from sharpen.cli.settings import show_settings

    show_settings(name, as_json=json, markdown=markdown)


def schema() -> None:
    """Print the JSON Schema of a recipe, with which editors complete and check one.

    sharpen schema > recipe.schema.json, and in the first line of a recipe beside it:
    # yaml-language-server: $schema=recipe.schema.json
    """
    from sharpen.cli.schema import print_schema

    print_schema()


def rewards() -> None:
    """List the rewards known by name."""
    from sharpen.rewards.kinds import describe_rewards

    _list("reward", describe_rewards(), "Or a function of your own: module:function, path/to/file.py:function.")


def tasks() -> None:
    """List the tasks known by name, with their parameters."""
    from sharpen.data.tasks import describe_tasks

    _list(
        "task",
        describe_tasks(),
        "Parameters are written arithmetic?terms=4&digits=1. Every task of the package reasoning-gym is available as "
        'reasoning_gym:<name>, after pip install "sharpen[tasks]".',
    )


def _list(what: str, described: dict[str, str], more: str) -> None:
    table = Table(box=None, padding=(0, 3, 0, 0))
    table.add_column(what, style="cyan", no_wrap=True)
    table.add_column("")
    for name, description in described.items():
        table.add_row(name, Text(description.replace("``", "")))
    console = safe_console()
    console.print(table)
    console.print(Text(f"\n{more}"))
