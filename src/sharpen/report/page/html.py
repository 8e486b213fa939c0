"""The page of runs as one HTML file that opens from disk."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from sharpen.errors import DataError
from sharpen.report.page.assets import SCRIPTS, STYLES, TEMPLATES, asset, policy_of_file
from sharpen.report.page.budget import chosen_chunks, most_metric_rows
from sharpen.report.page.json_text import in_script
from sharpen.report.page.run_data import Say, page_data
from sharpen.system.files import named_write_errors, replacing


def write_report(runs: Sequence[Path], file: Path, *, say: Say, title: str | None = None, seeds: bool = False) -> Path:
    """Write the page of ``runs`` to ``file``; ``seeds`` says that they are one recipe's with several seeds.

    ``say`` is told what is damaged and therefore left out. Raises RecipeError if one is not a run, DataError if none
    has metrics or a recipe cannot be read, DiskError if the page cannot be written.
    """
    data = page_data(runs, seeds=seeds, title=title, most_rows=most_metric_rows(len(runs)), say=say)
    if not any(run["series"]["step"] for run in data["runs"]):
        raise DataError(f"{', '.join(map(str, runs))}: there are no metrics yet, and so nothing to show")
    chunks = chosen_chunks(runs, data, say)
    with named_write_errors(file, "the report"):
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as partial, partial.open("wb") as stream:
            template = environment().get_template("page.html")
            template.stream(
                # A folder's name may hold bytes that are no UTF-8.
                title=data["title"].encode("utf-8", "replace").decode("utf-8"),
                policy=policy_of_file(),
                # Our own files, which no user's text is part of.
                styles=[Markup(asset(name)) for name in STYLES],
                scripts=[Markup(asset(name)) for name in SCRIPTS],
                data=Markup(in_script(data)),
                chunks=chunks,
            ).dump(stream, encoding="utf-8")
    return file


@cache
def environment() -> Environment:
    """Templates in which every text is escaped, and a name that is missing is an error."""
    return Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined)
