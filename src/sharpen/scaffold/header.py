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
    other = "not used" if choices.source.task is None else "for the verifier"
    return {column: choices.findings.uses.get(column, other) for column in choices.source.rows.columns}


def next_commands(choices: Choices, file: str) -> dict[str, str]:
    """What to call next, and why."""
    commands = {f"sharpen reward check {file}": "tries right and wrong answers"} if choices.samples else {}
    return {
        **commands,
        f"sharpen run {file} --dry-run": "loads everything and trains nothing",
        f"sharpen run {file}": "trains",
    }
