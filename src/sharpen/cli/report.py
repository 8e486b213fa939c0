"""``sharpen report``: the page of runs as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sharpen.errors import RecipeError
from sharpen.report.console import safe_console
from sharpen.report.page.found import FILE, runs_of
from sharpen.report.page.html import write_report


def report_runs(paths: Sequence[Path], out: Path | None) -> None:
    found = runs_of(paths)
    if out is None and len(paths) > 1:
        raise RecipeError(f"say where the page of several runs goes: --out {FILE}")
    file = paths[0] / FILE if out is None else out
    write_report(found.runs, file, title=found.title, seeds=found.seeds)
    size = file.stat().st_size
    safe_console(soft_wrap=True, highlight=False).print(f"{file}  {size / 1e6:.1f} MB: open it in a browser")
