"""Commands that show what runs did."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path], typer.Argument(metavar="RUN...", help="Runs, or a folder that holds runs or the seeds of a recipe.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="The file to write. Default: RUN/report.html.")
    ] = None,
) -> None:
    """Write the page of a run: one HTML file, which opens without a network.

    It shows whether the model got better, what is wrong in words, the curves, every completion beside its reward, and
    the tokens coloured by how the method pushed them. Several runs are shown together.
    """
    from sharpen.cli.report import report_runs

    report_runs(runs, out)
