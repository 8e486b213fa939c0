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


def view(
    folder: Annotated[
        Path, typer.Argument(metavar="[FOLDER]", help="The folder that holds the runs, or one run.")
    ] = Path("runs"),
    port: Annotated[
        int | None, typer.Option(min=1, max=65_535, help="The port. Default: 8765, or another if it is taken.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on. The default reaches no further than this machine.")
    ] = "127.0.0.1",
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Serve the pages of all runs in a folder, live while they train.

    The page is the one that `sharpen report` writes, with every step's completions. It is read-only, and opens with the
    address that is printed. Ctrl-C ends it.
    """
    from sharpen.cli.view import view_runs

    view_runs(folder, host=host, port=port, open_browser=open_browser)
