"""``sharpen sandbox check``: what hostile programs and forged solutions can do on this machine."""

from __future__ import annotations

import os
from collections.abc import Sequence

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sharpen.errors import SharpenError
from sharpen.report.console import safe_console
from sharpen.sandbox import Isolation, Sandbox, SandboxError
from sharpen.sandbox.battery import PROGRAMS, Attack, BatteryReport, Finding, check_sandbox


def check(isolation: Isolation, *, unsafe: bool, programs: Sequence[Attack] = PROGRAMS) -> None:
    """Run the battery, print what it found, and exit with 1 if anything got through.

    Raises:
        SharpenError: the sandbox cannot work here.
    """
    console = safe_console(highlight=False)
    try:
        with Sandbox(isolation, unsafe=unsafe) as sandbox, console.status("") as status:

            def show_progress(finding: Finding) -> None:
                status.update(Text(f"{finding.attack.group}: {finding.attack.name}"))

            report = check_sandbox(sandbox, programs, on_finding=show_progress)
    except (SandboxError, ValueError) as error:
        raise SharpenError(str(error)) from error
    _show(console, report, left_out=len(programs) - len(report.findings))
    if report.got_through:
        raise typer.Exit(1)


def _show(console: Console, report: BatteryReport, left_out: int) -> None:
    who = "root" if os.getuid() == 0 else "an ordinary user"
    console.print(Text(f"isolation: {report.isolation}, as {who}\n"))
    table = Table(box=None, padding=(0, 3, 0, 0))
    table.add_column("group", no_wrap=True)
    table.add_column("programs", justify="right")
    table.add_column("got through", justify="right")
    for group, (count, through) in report.groups().items():
        table.add_row(group, str(count), Text(str(through), style="bold red" if through else "green"))
    console.print(table)
    if left_out:
        console.print(Text(f"\n{left_out} programs were skipped: without isolation they would do harm."))
    for finding in report.got_through:
        console.print(
            Text.assemble(
                "\n",
                (f"{finding.attack.group}: {finding.attack.name}", "bold red"),
                *(f"\n  {w}" for w in finding.through),
            )
        )
    through = len(report.got_through)
    verdict = f"{through} got through" if through else "nothing got through"
    console.print(Text(f"\n{len(report.findings)} programs, {verdict}.", style="bold red" if through else "bold"))
