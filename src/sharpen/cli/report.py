"""``sharpen report``: the page of runs as one HTML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sharpen.errors import RecipeError
from sharpen.report.console import safe_console
from sharpen.report.page.found import runs_of
from sharpen.report.page.html import write_report
from sharpen.runs.folder import REPORT


def report_runs(paths: Sequence[Path], out: Path | None) -> None:
    found = runs_of(paths)
    if out is None and len(paths) > 1:
        raise RecipeError(f"say where the page of several runs goes: --out {REPORT}")
    if out is not None and out.is_dir():
        raise RecipeError(f"--out names the file to write, and {out} is a folder: --out {out / REPORT}")
    file = paths[0] / REPORT if out is None else out
    errors = safe_console(stderr=True, soft_wrap=True, highlight=False)
    write_report(found.runs, file, say=errors.print, title=found.title, seeds=found.seeds)
    size = file.stat().st_size
    safe_console(soft_wrap=True, highlight=False).print(f"{file}  {size / 1e6:.1f} MB: open it in a browser")
