"""What models, rewards and data sets write is shown as text in rollouts and tokens, whatever it holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hostile_texts import HOSTILE_CHARACTERS
from shown_runs import page_run, sample, tokens

Open = Callable[..., Any]

MARKUP = '</script><img src=x onerror="document.title=1"><a href="javascript:alert(1)">a</a><b>bold</b>'
SHOWN = {
    "markup": (MARKUP, MARKUP),
    "a link": ("javascript:alert(1)", "javascript:alert(1)"),
    "marks of direction": ("a\u202eb\u2066c", "aU+202EbU+2066c"),
    "an escape sequence": ("\x1b[2J\x07", "U+001B[2JU+0007"),
    "NUL": ("a\0b", "aU+0000b"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_every_field_of_a_rollout_shows_hostile_text_as_text(opened: Open, tmp_path: Path, name: str) -> None:
    written, shown = SHOWN[name]
    said = json.dumps(2 * [{"role": written, "content": written, written: written}])
    rows = [
        sample(written, written, None, error=written, refused=written, source=written, answer=written, right=False),
        sample(written, "x", 1.0, source=written, turns=2, samples=1, messages=said, end=written, finish=written),
    ]
    rows[1]["reward/" + written] = 1.0
    page = opened([page_run(tmp_path / "run", {1: rows})], "rollouts")
    page.locator(".completion").nth(1).wait_for()
    group = page.locator(".group")
    assert group.locator("a, img, script, b, iframe").count() == 0
    assert group.locator(".prompt").text_content() == shown
    assert group.locator(".completion > .said").first.text_content() == shown
    assert [error.text_content() for error in group.locator(".error").all()] == [
        f"the reward failed: {shown}",
        f"could not be judged: {shown}",
    ]
    assert group.locator(".message .role").first.text_content() == shown
    assert group.locator(".message .said").first.text_content() == shown


@pytest.mark.parametrize("name", SHOWN)
def test_hostile_tokens_are_text(opened: Open, tmp_path: Path, name: str) -> None:
    written, shown = SHOWN[name]
    row = sample(written, written, 1.0, **tokens([written, written], coefficient=[1.0, -1.0]))
    page = opened([page_run(tmp_path / "run", {1: [row]})], "tokens")
    page.locator(".token").first.wait_for()
    assert page.locator("main").locator("a, img, script, b, iframe").count() == 0
    assert [one.text_content() for one in page.locator(".token").all()] == [shown, shown]
    assert page.locator(".readout .piece").text_content() == shown


def test_every_hostile_character_in_one_step(opened: Open, tmp_path: Path) -> None:
    texts = [text.encode("utf-8", "replace").decode() for text in HOSTILE_CHARACTERS.values()]
    page = opened([page_run(tmp_path / "run", {1: [sample("p", text, 1.0) for text in texts]})], "rollouts")
    page.locator(".completion").nth(len(texts) - 1).wait_for()
    assert page.locator(".completion .said").first.text_content() == "(nothing)"


def test_a_line_of_a_million_characters_is_shown_in_part_and_stays_on_the_screen(opened: Open, tmp_path: Path) -> None:
    page = opened([page_run(tmp_path / "run", {1: [sample("p", "x" * 1_000_000, 1.0)]})], "rollouts")
    page.locator(".completion").wait_for()
    assert len(page.locator(".said bdi").text_content()) == 1500
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # The page holds 50,000 characters of a text.
    assert "show more (48,500 characters)" in page.locator(".said").inner_text()
    page.get_by_role("button", name="show more").click()
    assert len(page.locator(".said bdi").text_content()) == 9_500
    assert "longer than this page holds" in page.locator(".completion").inner_text()
