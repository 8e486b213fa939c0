"""The page's frame and overview in a browser: tabs, address, keyboard, themes, colours, small screens, many steps."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sharpen.report.page.assets import asset
from shown_runs import page_run, sample

Open = Callable[..., Any]
VIEWS = ["Overview", "Curves", "Rollouts", "Tokens", "Prompts", "Metrics"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    def answers(right: int) -> list[dict[str, Any]]:
        """Four answers to each of ten prompts, ``right`` of them right."""
        marks = [(p, a < right) for p in range(10) for a in range(4)]
        return [sample(f"{p}+1=", str(p), float(mark), right=mark) for p, mark in marks]

    drawn = {step: [sample("2+2=", "4", 1.0), sample("2+2=", "5", 0.0)] for step in range(1, 5)}
    return page_run(tmp_path / "run", drawn, {0: answers(1), 4: answers(3)})


def shown(page: Any, view: str) -> None:
    """Wait until the tab of this view is the one that is chosen."""
    page.locator("[role=tab][aria-selected=true]", has_text=view).wait_for()


def test_tabs_by_pointer_keyboard_number_and_address(opened: Open, run: Path) -> None:
    page = opened([run])
    assert page.get_by_role("tab").all_inner_texts() == VIEWS
    shown(page, "Overview")
    page.get_by_role("tab", name="Metrics").click()
    shown(page, "Metrics")
    assert page.url.partition("#")[2].partition("?")[0] == "metrics"
    page.keyboard.press("ArrowRight")
    shown(page, "Overview")
    page.keyboard.press("4")
    shown(page, "Tokens")
    page.go_back()
    shown(page, "Overview")
    # Of the tabs only the one that is chosen is on the way of the Tab key.
    assert page.locator("[role=tab][tabindex='0']").count() == 1


def test_the_help_lies_over_the_page_and_keeps_the_keys(opened: Open, run: Path) -> None:
    page = opened([run])
    page.keyboard.press("?")
    page.get_by_role("dialog").wait_for()
    page.keyboard.press("2")
    page.keyboard.press("?")
    page.wait_for_timeout(100)
    shown(page, "Overview")
    assert page.get_by_role("dialog").count() == 1
    page.keyboard.press("Escape")
    page.get_by_role("dialog").wait_for(state="detached")


def test_the_overview_says_whether_it_is_better(opened: Open, run: Path) -> None:
    page = opened([run])
    # Every prompt went from one right answer of four to three.
    said = page.locator(".headline").inner_text()
    assert said == "grpo on a model, 4 of 4 steps. Held-out pass@1 went from 25.0 % to 75.0 %: better than before."
    cells = page.locator(".measures tbody tr").first.locator("td").all_inner_texts()
    assert [cell.strip() for cell in cells[:5]] == [
        "pass@1",
        "25.0 %",
        "75.0 %",
        "+50.0 % [+50.0, +50.0]",
        "better",
    ]
    assert page.locator(".sentence .part").all_inner_texts() == ["SOURCE", "REWARD", "ADVANTAGE", "LOSS"]


def test_findings_lead_to_the_curve_and_to_the_rollouts(opened: Open, tmp_path: Path) -> None:
    nothing = {step: [sample("2+2=", "?", 0.0)] * 4 for step in range(1, 13)}
    page = opened([page_run(tmp_path / "run", nothing)])
    finding = page.locator("[data-finding]").first
    assert finding.get_attribute("class") == "finding problem"
    finding.get_by_role("button", name="rollouts there").click()
    page.locator(".step", has_text="step 12").wait_for()
    page.go_back()
    page.locator("[data-finding]").first.get_by_role("button").first.click()
    page.locator("#tab-curves[aria-selected=true]").wait_for()


def test_two_runs_are_chosen_and_compared(opened: Open, run: Path, tmp_path: Path) -> None:
    other = page_run(tmp_path / "other", {1: [sample("3+3=", "6", 1.0)]})
    page = opened([run, other])
    rows = page.locator("section", has_text="The runs").first.locator("tbody tr")
    assert rows.count() == 2
    page.get_by_label("Run").select_option("other")
    page.get_by_role("tab", name="Rollouts").click()
    page.locator(".group .prompt", has_text="3+3=").wait_for()


def test_a_view_that_fails_says_so_and_the_others_work(
    opened: Open, run: Path, problems: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    page = opened([run])
    page.evaluate(
        "() => { sharpen.views.find((view) => view.id === 'prompts').show = () => { throw new Error('broken'); }; }"
    )
    page.get_by_role("tab", name="Prompts").click()
    assert page.get_by_role("alert").inner_text() == "Prompts failed: broken"
    page.get_by_role("tab", name="Metrics").click()
    page.locator("main table").wait_for()
    assert len(problems) == 1
    problems.clear()


def test_the_colours_follow_the_system_and_the_switch(opened: Open, run: Path) -> None:
    def dark(page: Any) -> bool:
        channels = [
            int(x) for x in re.findall(r"\d+", page.evaluate("getComputedStyle(document.body).backgroundColor"))
        ]
        return sum(channels) < 3 * 128

    page = opened([run], color_scheme="dark")
    assert dark(page)
    switch = page.locator("button.theme")
    switch.click()
    assert (dark(page), "light" in switch.inner_text()) == (False, True)
    switch.click()
    assert (dark(page), "dark" in switch.inner_text()) == (True, True)
    assert not dark(opened([run], color_scheme="light"))


def luminance(colour: str) -> float:
    """The relative luminance of ``#rrggbb`` (WCAG 2)."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def test_the_contrast_of_texts_and_lines() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    schemes = re.findall(r"color-scheme: (light|dark);(.*?)\}", asset("page.css"), re.DOTALL)
    assert [name for name, _ in schemes] == ["light", "dark", "dark"]
    palettes = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", text)) for _, text in schemes]
    # The system's dark and the switch's are the same.
    assert palettes[1] == palettes[2]
    for palette in palettes:
        for ink in ("ink", "soft", "accent", "up", "down", "good", "bad", "warn"):
            assert contrast(palette[ink], palette["card"]) >= 4.5, ink
            assert contrast(palette[ink], palette["paper"]) >= 4.5, ink
        for name, colour in palette.items():
            if name.startswith("series"):
                assert contrast(colour, palette["card"]) >= 3, name


@pytest.mark.parametrize("view", ["glance", "curves", "rollouts", "tokens", "prompts", "metrics"])
def test_a_narrow_screen_is_never_scrolled_sideways(opened: Open, run: Path, view: str) -> None:
    (run / "recipe.yaml").write_text(
        json.dumps({"method": {"name": "grpo"}, "training": {"steps": 4}, "model": {"path": "/long/" + "path/" * 60}})
    )
    page = opened([run], view, viewport={"width": 420, "height": 800})
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= 420


def test_of_many_completions_only_what_is_near_the_screen_is_laid_out(opened: Open, tmp_path: Path) -> None:
    """200 steps of 64 completions of 1,500 characters."""
    text = "one and two are three " * 70
    rows = [(str(prompt), float(reward)) for prompt in range(32) for reward in range(2)]
    steps = {step: [sample(prompt, text, reward) for prompt, reward in rows] for step in range(1, 201)}
    page = opened([page_run(tmp_path / "run", steps)])
    page.locator(".headline").wait_for()
    assert page.evaluate("document.querySelectorAll('main *').length") < 1_000
    page.get_by_role("tab", name="Rollouts").click()
    page.locator(".completion").first.wait_for()
    assert page.locator(".found").inner_text() == "64 completions of 32 prompts"
    built = page.locator(".completion").count()
    assert 2 <= built < 40
    page.locator(".group-place").last.scroll_into_view_if_needed()
    page.locator(".group-place").last.locator(".completion").first.wait_for()
    assert page.locator(".completion").count() > built
