"""The rollouts in a browser: their order, what is filtered and found, the same prompt at two steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shown_runs import page_run, sample

Open = Callable[..., Any]

STEP_1 = [
    sample("2+2=", "four", 0.5),
    sample("2+2=", "5, I think", 0.0),
    sample("2+2=", "4", 1.0),
    sample("3+3=", "the reward breaks on this", None, error="ValueError: no number"),
    sample("3+3=", "six, and so on without an end", 0.25, finish="length"),
    sample("9+9=", "18", 1.0),
    sample("9+9=", "18!", 1.0),
]
STEP_5 = [sample("2+2=", "always 4", 1.0), sample("2+2=", "never 5", 0.75)]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    held_out = {
        0: [sample("1+1=", "11", 0.0, right=False, answer="11"), sample("1+1=", "2", 1.0, right=True, answer="2")],
        5: [sample("1+1=", "two: 2", 1.0, right=True, answer="2"), sample("1+1=", "2", 1.0, right=True, answer="2")],
    }
    return page_run(tmp_path / "run", {1: STEP_1, 5: STEP_5}, held_out)


def said(page: Any) -> list[str]:
    return page.locator(".completion .said").all_inner_texts()


def found(page: Any) -> str:
    return str(page.locator(".found").inner_text())


def shown(page: Any, count: int) -> None:
    page.locator(".completion").nth(count - 1).wait_for()
    assert page.locator(".completion").count() == count


def test_the_groups_of_a_step_with_rewards_errors_and_what_was_cut_off(opened: Open, run: Path) -> None:
    page = opened([run], "rollouts?step=1")
    shown(page, 7)
    assert found(page) == "7 completions of 3 prompts"
    assert page.locator(".group .prompt").all_inner_texts() == ["2+2=", "3+3=", "9+9="]
    assert page.locator(".reward").all_inner_texts() == ["0.5", "0", "1", "no reward", "0.25", "1", "1"]
    broken, cut = page.locator(".group").nth(1).locator(".completion").all()
    assert "the reward failed: ValueError: no number" in broken.inner_text()
    assert "cut off" in cut.inner_text()
    assert "no spread" in page.locator(".group").nth(2).inner_text()
    # A sum of 3.75 over the six that have a reward.
    assert "mean reward 0.625, from 0 to 1" in page.locator(".step-summary").inner_text()


def test_sorted_by_reward_and_by_length(opened: Open, run: Path) -> None:
    page = opened([run], "rollouts?step=1")
    page.get_by_label("Order").select_option("best first")
    shown(page, 7)
    assert said(page)[:3] == ["4", "four", "5, I think"]
    page.get_by_label("Order").select_option("worst first")
    # What has no reward is worse than any.
    page.locator(".completion").first.filter(has_text="the reward breaks").wait_for()
    assert said(page)[2:5] == ["5, I think", "four", "4"]
    page.get_by_label("Order").select_option("longest first")
    page.locator(".completion").first.filter(has_text="without an end").wait_for()
    assert said(page)[-2:] == ["18!", "18"]


@pytest.mark.parametrize(
    ("asked", "left"),
    [
        ("reward failed", ["the reward breaks on this"]),
        ("cut off", ["six, and so on without an end"]),
        ("lowest reward", ["5, I think", "six, and so on without an end", "18", "18!"]),
        ("groups without spread", ["the reward breaks on this", "six, and so on without an end", "18", "18!"]),
        ("groups with spread", ["four", "5, I think", "4"]),
    ],
)
def test_filtered(opened: Open, run: Path, asked: str, left: list[str]) -> None:
    page = opened([run], "rollouts?step=1")
    page.get_by_label("Show").select_option(asked)
    page.locator(".found", has_text=f"{len(left)} of 7 completions").wait_for()
    shown(page, len(left))
    assert said(page) == left


def test_a_search_marks_what_it_finds_and_counts_it(opened: Open, run: Path) -> None:
    page = opened([run], "rollouts?step=1")
    page.get_by_label("Search").fill("AN ")
    page.get_by_label("Search").press("Enter")
    page.locator(".found", has_text="1 of 7 completions").wait_for()
    assert said(page) == ["six, and so on without an end"]
    assert page.locator(".said mark").all_inner_texts() == ["an "]


def test_the_same_prompt_at_two_steps_side_by_side(opened: Open, run: Path) -> None:
    page = opened([run], "rollouts?step=1")
    page.get_by_role("button", name="this prompt at another step").first.click()
    page.locator(".pane").nth(1).locator(".completion").first.wait_for()
    first, second = page.locator(".pane").all()
    assert first.locator("h2").inner_text() == "step 1"
    assert second.locator("h2").inner_text() == "step 5"
    assert first.locator(".said").all_inner_texts() == ["four", "5, I think", "4"]
    assert second.locator(".said").all_inner_texts() == ["always 4", "never 5"]
    page.reload()
    page.locator(".pane").nth(1).locator(".said", has_text="never 5").wait_for()


def test_any_step_may_stand_beside_the_other(opened: Open, tmp_path: Path) -> None:
    steps = {step: [sample("2+2=", f"said at {step}", 1.0)] for step in range(1, 5)}
    page = opened([page_run(tmp_path / "run", steps)], "rollouts?step=1&with=4&prompt=2%2B2%3D")
    page.locator(".said", has_text="said at 4").wait_for()
    page.get_by_label("Step beside it").select_option("beside step 3")
    page.locator(".said", has_text="said at 3").wait_for()
    assert said(page) == ["said at 1", "said at 3"]


def test_the_prompts_of_one_source(opened: Open, tmp_path: Path) -> None:
    rows = [sample("2+2=", "4", 1.0, source="sums"), sample("rhyme on cat", "hat", 1.0, source="rhymes")]
    run = page_run(tmp_path / "run", {1: rows})
    of_sources = {"step": 1, "reward/mean": 1.0, "reward/std": 0.0}
    of_sources |= {"source/sums/prompts": 1, "source/rhymes/prompts": 1}
    (run / "metrics.jsonl").write_text(json.dumps(of_sources) + "\n")
    page = opened([run], "rollouts")
    page.get_by_label("Source").select_option("rhymes")
    page.locator(".found", has_text="1 of 2 completions").wait_for()
    assert said(page) == ["hat"]


def test_the_steps_are_walked_by_buttons_and_held_out_answers_say_whether_they_are_right(
    opened: Open, run: Path
) -> None:
    page = opened([run], "rollouts?step=1")
    page.get_by_label("Step after").click()
    page.locator(".step", has_text="step 5").wait_for()
    assert page.get_by_label("Step after").is_disabled()
    page.get_by_label("Which completions").select_option("held-out")
    page.locator(".tag", has_text="right").first.wait_for()
    page.get_by_label("Step before").click()
    page.locator(".tag", has_text="wrong").wait_for()
    assert page.locator(".completion .tag").all_inner_texts() == ["✗ wrong", "✓ right"]
    assert "answer: 11" in page.locator(".completion").first.inner_text()


def test_prompts_that_moved_lead_to_both_of_their_steps(opened: Open, run: Path) -> None:
    page = opened([run], "prompts")
    page.locator("tbody tr").first.wait_for()
    assert page.locator("h2").inner_text() == "0 fell, 1 rose, 0 stayed"
    assert "+0.5" in page.locator("tbody tr").inner_text()
    # (0.5 + 0 + 1) / 3 = 0.5 at step 1, 0.875 at step 5.
    page.get_by_label("Which prompts").select_option("training prompts")
    page.locator("tbody tr", has_text="2+2=").wait_for()
    assert page.locator("tbody td.number").all_inner_texts() == ["0.5 step 1, n 3", "0.875 step 5, n 2", " +0.375"]
    page.get_by_role("button", name="both side by side").click()
    page.locator(".pane").nth(1).locator(".completion").first.wait_for()
    assert page.locator(".pane h2").all_inner_texts() == ["step 1", "step 5"]


def test_conversations_show_each_turn(opened: Open, tmp_path: Path) -> None:
    messages = (
        '[{"role": "assistant", "content": "look up pi"}, {"role": "tool", "content": "3.14"},'
        ' {"role": "assistant", "content": "about 3"}]'
    )
    rows = [sample("What is pi?", "about 3", 1.0, messages=messages, turns=2, samples=1, end="out_of_turns")]
    page = opened([page_run(tmp_path / "run", {1: rows})], "rollouts")
    page.locator(".message").nth(2).wait_for()
    assert page.locator(".message .role").all_inner_texts() == ["assistant", "tool", "assistant"]
    assert page.locator(".message .said").all_inner_texts() == ["look up pi", "3.14", "about 3"]
    assert "out of turns" in page.locator(".verdict-line").inner_text()


def test_a_run_without_samples_says_how_to_get_them(opened: Open, tmp_path: Path) -> None:
    run = page_run(tmp_path / "run", {1: [sample("p", "c", 1.0)]})
    for file in (run / "samples").iterdir():
        file.unlink()
    page = opened([run], "rollouts")
    assert "log.samples_every" in page.locator("main").inner_text()
    page = opened([run], "tokens")
    assert "log.tokens_every" in page.locator("main").inner_text()


def test_steps_are_walked_by_the_keyboard_and_the_focus_stays(opened: Open, tmp_path: Path) -> None:
    run = page_run(tmp_path / "run", {step: [sample("p", f"at {step}", 1.0)] for step in (1, 2, 3, 4)})
    page = opened([run], "rollouts?step=1")
    page.get_by_label("Step after").focus()
    for step in (2, 3):
        page.keyboard.press("Enter")
        page.locator(".said", has_text=f"at {step}").wait_for()
    page.get_by_label("Step", exact=True).focus()
    for step in (2, 1):
        page.keyboard.press("ArrowLeft")
        page.locator(".said", has_text=f"at {step}").wait_for()
    assert page.evaluate("document.activeElement.ariaLabel") == "Step"


def test_held_out_answers_filtered_by_right_and_wrong(opened: Open, run: Path) -> None:
    page = opened([run], "rollouts?step=0&kind=held_out")
    shown(page, 2)
    page.get_by_label("Show").select_option("answered wrong")
    page.locator(".found", has_text="1 of 2 completions").wait_for()
    assert said(page) == ["11"]
    page.get_by_label("Show").select_option("answered right")
    page.locator(".said", has_text="2").wait_for()
    assert said(page) == ["2"]
    page.get_by_label("Which completions").select_option("training")
    page.locator(".step", has_text="step 5").wait_for()
    assert page.get_by_label("Show").locator("option").all_inner_texts().count("answered right") == 0
