"""``sharpen view``: the pages of a folder's runs, served on this machine."""

from __future__ import annotations

import threading
from pathlib import Path

from sharpen.errors import RecipeError
from sharpen.report.console import safe_console


def view_runs(folder: Path, *, host: str, port: int | None, open_browser: bool) -> None:
    if not folder.is_dir():
        raise RecipeError(f"{folder}: there is no such folder; `sharpen view FOLDER` shows the runs in it")
    try:
        from sharpen.serving.serve import serve
        from sharpen.serving.view import create_app
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn", "starlette"):
            raise
        raise RecipeError(f'`sharpen view` needs the package {error.name}: pip install "sharpen[view]"') from error
    console = safe_console(soft_wrap=True, highlight=False)
    errors = safe_console(stderr=True, soft_wrap=True, highlight=False)

    def say(address: str) -> None:
        console.print(f"the runs in {folder}: {address}")
        errors.print("Ctrl-C ends it", style="dim")

    ending = threading.Event()
    serve(
        create_app(folder, ending.is_set),
        ending=ending,
        host=host,
        port=port,
        open_browser=open_browser,
        say=say,
        warn=lambda text: errors.print(text, style="yellow"),
    )
