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
from sharpen.sandbox.battery.bystander import MOST_LEFT_BYTES, MOST_LEFT_FILES, MOST_SLOWDOWN
from sharpen.system.printable import printable

_FELT = (
    ("opening", "time to open a file", "×", MOST_SLOWDOWN),
    ("starting", "time to start a process", "×", MOST_SLOWDOWN),
    ("taken_bytes", "less memory available, while it ran", "MiB", None),
    ("left_bytes", "kernel memory left behind", "MiB", MOST_LEFT_BYTES),
    ("cached_bytes", "the same, reclaimable", "MiB", None),
    ("left_files", "open files left behind", "", MOST_LEFT_FILES),
)
"""Field of `Felt`, its name in the table, its unit, and what counts as a breach."""


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
            limits = _limits(sandbox)
    except (SandboxError, ValueError) as error:
        raise SharpenError(str(error)) from error
    _show(console, report, limits, left_out=len(programs) - len(report.findings))
    if report.got_through:
        raise typer.Exit(1)


def _limits(sandbox: Sandbox) -> str:
    if sandbox.cgroup is not None:
        return f"cgroups in {sandbox.cgroup}"
    return f"rlimits, which do not count the kernel's memory; no cgroups: {sandbox.why_no_cgroup}"


def _show(console: Console, report: BatteryReport, limits: str, left_out: int) -> None:
    who = "root" if os.getuid() == 0 else "an ordinary user"
    console.print(Text(f"isolation: {report.isolation}, as {who}"))
    console.print(Text(f"limits: {printable(limits)}\n"))
    table = Table(box=None, padding=(0, 3, 0, 0))
    table.add_column("group", no_wrap=True)
    table.add_column("programs", justify="right")
    table.add_column("got through", justify="right")
    for group, (count, through) in report.groups().items():
        table.add_row(group, str(count), Text(str(through), style="bold red" if through else "green"))
    console.print(table)
    _show_felt(console, report)
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


def _show_felt(console: Console, report: BatteryReport) -> None:
    """Print the worst that other processes felt, and of which program."""
    table = Table(box=None, padding=(0, 3, 0, 0))
    for heading, justify in (("others felt", "left"), ("worst", "right"), ("a breach above", "right"), ("of", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for field, what, unit, most in _FELT:
        finding = report.worst_felt(field)
        if finding is None or finding.felt is None:
            continue
        table.add_row(
            what,
            _amount(getattr(finding.felt, field), unit),
            "-" if most is None else _amount(most, unit),
            Text(f"{finding.attack.group}: {finding.attack.name}"),
        )
    if table.row_count:
        console.print()
        console.print(table)


def _amount(value: float, unit: str) -> str:
    if unit == "MiB":
        return f"{value / (1 << 20):.0f} MiB"
    return f"{value:.1f} {unit}" if unit else f"{value:.0f}"
