"""The comment at the head of a recipe."""

from __future__ import annotations

from sharpen.scaffold.choose import Choices
from sharpen.scaffold.findings import SAID


def header_of(choices: Choices, file: str) -> tuple[str, ...]:
    """What was found, and the next commands."""
    uses = columns_used(choices)
    width = max(map(len, uses))
    commands = next_commands(choices, file)
    longest = max(map(len, commands))
    return (
        f"{choices.method} on {choices.source.train}: {SAID[choices.findings.kind]}.",
        f"Written by `sharpen init` for {choices.machine}. Change what you like.",
        "",
        *(f"  {column:<{width}}  {use}" for column, use in uses.items()),
        "",
        *(f"  {command:<{longest}}  {why}" for command, why in commands.items()),
    )


def columns_used(choices: Choices) -> dict[str, str]:
    """Every column, and what it is used for."""
    rows, uses = choices.source.rows, choices.findings.uses
    if choices.source.task is not None:
        return {column: uses.get(column, "for the verifier") for column in rows.columns}
    read = {column for column in rows.columns if any(f"`{column}`" in note for note in rows.notes)}
    return {column: uses.get(column, "see `data`" if column in read else "not used") for column in rows.columns}


def next_commands(choices: Choices, file: str) -> dict[str, str]:
    """What to call next, and why."""
    commands = {f"sharpen reward check {file}": "tries right and wrong answers"} if choices.samples else {}
    return {
        **commands,
        f"sharpen run {file} --dry-run": "loads everything and trains nothing",
        f"sharpen run {file}": "trains",
    }
