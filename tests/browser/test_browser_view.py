"""`sharpen view` in a browser: the list, a run, and what arrives while it goes on, under the strict policy."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from served import Served, served

pytest.importorskip("fastapi", reason="needs sharpen[view]")
pytest.importorskip("uvicorn", reason="needs sharpen[view]")

NAME = "<img src=x onerror=alert(1)> \u202eevil"


def row(step: int) -> dict[str, float]:
    return {
        "step": step,
        "reward/mean": step / 8,
        "reward/std": 0.25,
        "held_out/pass@1": step / 16,
        "time/step_s": 2.0,
        "time/rollout_s": 1.0,
        "tokens_per_s/rollout": 50.0,
    }


def append(run: Path, *steps: int) -> None:
    with (run / "metrics.jsonl").open("a") as stream:
        stream.write("".join(f"{json.dumps(row(step))}\n" for step in steps))


def make_run(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "recipe.yaml").write_text("method: {name: grpo}\nmodel: {path: m}\ntraining: {steps: 8}\n")
    append(path, 1, 2)
    return path


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    for name in ("one", "two", NAME):
        make_run(tmp_path / "runs" / name)
    with served(tmp_path / "runs", cwd=tmp_path) as started:
        yield started


@pytest.fixture
def page(server: Served, new_page: Callable[..., Any], problems: list[str]) -> Any:
    """A page that is only allowed to ask this server."""
    one = new_page()
    one.on("request", lambda request: None if request.url.startswith(server.origin) else problems.append(request.url))
    return one


def wait_until(page: Any, expression: str, within_s: float = 20.0) -> None:
    """Until it is true in the page. Playwright's own waiting would need `eval`, which the policy forbids."""
    end_s = time.monotonic() + within_s
    while not page.evaluate(expression):
        assert time.monotonic() < end_s, expression
        page.wait_for_timeout(100)


def test_from_the_list_to_a_run_that_goes_on(server: Served, page: Any, tmp_path: Path) -> None:
    page.goto(server.address)
    assert page.url == f"{server.origin}/"  # without the token, in the history too
    assert page.evaluate("history.length") <= 2
    assert page.evaluate("document.cookie") == ""  # no script sees it
    assert page.locator("td.name").all_inner_texts() != []
    assert page.get_by_text("<img src=x onerror=alert(1)>").count() == 1
    page.get_by_role("link", name="one", exact=True).click()
    status = page.locator(".status")
    status.get_by_text("live").wait_for()
    series = "() => sharpen.data.page.runs[0].series"
    assert page.evaluate(f"({series})().step") == [1, 2]
    append(tmp_path / "runs" / "one", 3, 4)
    wait_until(page, f"({series})().step.length === 4")
    assert page.evaluate(f"({series})().values['reward/mean']") == [0.125, 0.25, 0.375, 0.5]
    assert page.evaluate(f"({series})().time_s") == [2, 4, 6, 8]
    # The findings and the glance come a little later than the rows.
    wait_until(page, "sharpen.data.page.runs[0].glance.step === 4")
    # A run that goes on from an earlier step.
    (tmp_path / "runs" / "one" / "metrics.jsonl").write_text("")
    append(tmp_path / "runs" / "one", 1, 2, 3)
    wait_until(page, f"({series})().step.length === 3")
    page.get_by_role("link", name="All runs").click()
    assert page.get_by_role("row").count() == 4


def test_every_view_stands_under_the_policy(server: Served, page: Any) -> None:
    """The one that reads from a script that the policy does not allow would say so in the console."""
    page.goto(server.address)
    page.locator("td.name a").filter(has_text="evil").click()
    page.get_by_role("tab").first.wait_for()
    for tab in page.get_by_role("tab").all():
        tab.click()
        page.wait_for_timeout(150)
        assert page.locator(".failure").count() == 0, tab.inner_text()


def test_runs_that_are_chosen_are_compared_over_one_stream(server: Served, page: Any, tmp_path: Path) -> None:
    page.goto(server.address)
    button = page.get_by_role("button", name="Compare")
    assert button.is_disabled()
    page.get_by_label("Choose one").check()
    assert button.is_disabled()
    page.get_by_label("Choose two").check()
    streams: list[str] = []
    page.on("request", lambda request: streams.append(request.url) if "events" in request.url else None)
    page.get_by_role("button", name="Compare 2 runs").click()
    page.get_by_text("live").wait_for()
    names = page.evaluate("sharpen.data.page.runs.map((run) => run.name)")
    assert sorted(names) == ["one", "two"]
    append(tmp_path / "runs" / "two", 3)
    wait_until(page, "sharpen.data.page.runs.find((run) => run.name === 'two').series.step.length === 3")
    assert page.evaluate("sharpen.data.page.runs.find((run) => run.name === 'one').series.step") == [1, 2]
    assert len(streams) == 1
