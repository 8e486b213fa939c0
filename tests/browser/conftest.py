"""Pages of runs in a real browser. Whatever it complains of fails the test, and so does a request to a network."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from sharpen.report.page.html import write_report

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""How the browser is called on Debian, Ubuntu, and by its maker."""

Open = Callable[..., Any]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """One browser for the tests of a file: as long as it runs, no other test of the process can have an event loop."""
    sync = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip("needs Chromium on the path: apt-get install chromium")
    # As root, which tests in a container often are, it starts without a sandbox of its own only.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def problems() -> Iterator[list[str]]:
    """What went wrong in a browser; at the end of the test there must be nothing."""
    found: list[str] = []
    yield found
    assert found == []


@pytest.fixture
def new_page(chromium: Any, problems: list[str]) -> Iterator[Open]:
    """``new_page(**settings)``: an empty page whose errors fail the test."""
    contexts = []

    def make(**settings: Any) -> Any:
        context = chromium.new_context(**{"viewport": {"width": 1200, "height": 900}, **settings})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(15_000)
        page.on("console", lambda said: problems.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("dialog", lambda dialog: problems.append(f"a dialog: {dialog.message}"))
        page.on("request", lambda request: problems.append(request.url) if _leaves(request.url) else None)
        return page

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def opened(new_page: Open, problems: list[str], tmp_path: Path) -> Open:
    """``opened(runs, address)``: the page of these runs as one file, at its part ``address``."""

    def open_page(runs: Sequence[Path], address: str = "", *, seeds: bool = False, **settings: Any) -> Any:
        file = write_report(runs, tmp_path / "page.html", say=problems.append, seeds=seeds)
        page = new_page(**settings)
        page.goto(f"file://{file}#{address}")
        page.locator("main > *").first.wait_for()
        return page

    return open_page


def _leaves(address: str) -> bool:
    """Whether a request goes anywhere but to a file or this machine."""
    return not address.startswith(("file:", "data:", "blob:", "http://127.0.0.1:", "http://localhost:"))
