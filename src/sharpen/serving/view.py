"""The pages of the runs in a folder, read-only: a list, a page for each run or for several, and their data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any

from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.responses import HTMLResponse, PlainTextResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sharpen.errors import SharpenError
from sharpen.report.page.assets import SCRIPTS, STYLES, asset
from sharpen.report.page.json_text import Json, json_text
from sharpen.report.page.run_data import chunk, page_data
from sharpen.serving.folder import FoundRun, ServedFolder
from sharpen.serving.live import Events, Live
from sharpen.serving.summary import HEIGHT, WIDTH, Summaries, Summary
from sharpen.system.printable import printable

HERE = Path(__file__).parent
OWN = ("list.js", "list.css")
"""Scripts and styles of the list, beside those of a run's page."""
MOST_COMPARED = 20
KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8"}

Ids = Annotated[list[str], Query(max_length=MOST_COMPARED)]


def create_app(folder: Path, ending: Callable[[], bool] = lambda: False) -> FastAPI:
    """The app that shows the runs in ``folder``. It trusts whoever asks: who may ask is the guard's concern.

    ``ending`` says that the server stops, which ends the streams of events.
    """
    app = FastAPI(title="sharpen view", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    served, summaries = ServedFolder(folder), Summaries()
    live = Live(lambda run: served.run(run) is not None, ending)

    @app.exception_handler(SharpenError)
    def unreadable(request: Request, error: SharpenError) -> Response:
        return PlainTextResponse(str(error), status_code=404)

    def named(ids: Sequence[str]) -> list[FoundRun]:
        runs = [found for one in dict.fromkeys(ids) if (found := served.run(one)) is not None]
        if len(runs) < len(set(ids)) or not runs:
            raise HTTPException(404, "There is no such run: it was moved or removed, or never was.")
        return runs

    def seeds(runs: Sequence[FoundRun]) -> bool:
        return len(runs) > 1 and all(run.seeds for run in runs) and len({run.group for run in runs}) == 1

    def page(runs: Sequence[FoundRun], address: str, query: str = "") -> Response:
        title = " · ".join(printable(run.name) for run in runs)
        return _html("run.html", title=title, data=f"{address}/data.json{query}", events=f"{address}/events{query}")

    def data(runs: Sequence[FoundRun]) -> Response:
        title = runs[0].group if seeds(runs) else " · ".join(run.name for run in runs)
        shown = page_data([run.path for run in runs], live=True, seeds=seeds(runs), title=title)
        for run, of_run in zip(runs, shown["runs"], strict=True):
            of_run["name"] = run.name
        return _json(shown)

    @app.get("/")
    def list_of_runs() -> Response:
        found = served.look()
        rows = [summaries.of(run) for run in found.runs.values()]
        groups: dict[str, list[Summary]] = {}
        for row in sorted(rows, key=lambda row: row.changed_s or 0.0, reverse=True):
            groups.setdefault(row.run.group, []).append(row)
        return _html(
            "list.html",
            folder=served.name,
            path=str(served.root),
            groups=groups,
            left_out=found.left_out,
            running=any(row.status == "running" for row in rows),
            width=WIDTH,
            height=HEIGHT,
        )

    @app.get("/run/{run}")
    def page_of_run(run: str) -> Response:
        return page(named([run]), f"/run/{run}")

    @app.get("/run/{run}/data.json")
    def data_of_run(run: str) -> Response:
        return data(named([run]))

    @app.get("/run/{run}/chunk/{name:path}")
    def chunk_of_run(run: str, name: str) -> Response:
        return _json(chunk(named([run])[0].path, name))

    @app.get("/run/{run}/events")
    def events_of_run(run: str) -> Events:
        return live.response(named([run]))

    @app.get("/compare")
    def page_of_several(run: Ids) -> Response:
        return page(named(run), "/compare", _query(run))

    @app.get("/compare/data.json")
    def data_of_several(run: Ids) -> Response:
        return data(named(run))

    @app.get("/compare/events")
    def events_of_several(run: Ids) -> Events:
        return live.response(named(run))

    @app.get("/static/{name:path}")
    def static(name: str) -> Response:
        if name in OWN:
            text = _own(name)
        elif name in SCRIPTS + STYLES:
            text = asset(name)
        else:
            raise HTTPException(404)
        return Response(text, media_type=KINDS[Path(name).suffix])

    return app


def _query(ids: Sequence[str]) -> str:
    # Ids that were found are hexadecimal digits.
    return "?" + "&".join(f"run={one}" for one in ids)


def _json(value: Json) -> Response:
    return Response(json_text(value), media_type="application/json")


def _html(template: str, **values: Any) -> Response:
    return HTMLResponse(_environment().get_template(template).render(scripts=SCRIPTS, styles=STYLES, **values))


@cache
def _own(name: str) -> str:
    return (HERE / "static" / name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    """Templates in which every text is escaped, and a name that is missing is an error."""
    made = Environment(loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined)
    made.filters |= {"shown": printable, "moment": _moment, "number": _number}
    return made


def _moment(seconds: float | None) -> str:
    return "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _number(value: float | None, share: bool = False) -> str:
    if value is None:
        return "–"
    return (f"{100 * value:.1f} %" if share else f"{value:.3g}").replace("-", "−")
