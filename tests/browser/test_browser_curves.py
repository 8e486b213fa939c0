"""The curves and the metrics in a browser: what stands there is what the run logged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sharpen.report.series import smooth

Rows = Sequence[Mapping[str, float]]
Open = Callable[..., Any]


def run_folder(folder: Path, rows: Rows) -> Path:
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("method: {name: grpo}\ntraining: {steps: 40}\n")
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


def rows_of(shift: float = 0.0) -> list[dict[str, float]]:
    """40 steps of a reward that goes up and down by turns, with a held-out measure every 10."""
    rows: list[dict[str, float]] = []
    for step in range(41):
        row: dict[str, float] = {"step": step}
        if step:
            row |= {
                "reward/mean": step / 100 + (0.25 if step % 2 else 0.0) + shift,
                "reward/std": 0.5 - step / 100,
                "reward/style": step / 80,
                "reward/failed": 0.0,
                "entropy": 2.0 - step / 25,
                "logprob": -2.0 + step / 25,
                "time/step_s": 2.0,
                "time/rollout_s": 1.0,
                "tokens_per_s/rollout": 50.0,
            }
        if step % 10 == 0:
            row |= {"held_out/pass@1": step / 50, "time/evaluation_s": 1.0}
            row |= {"held_out/pass@1_low": step / 50 - 0.0625, "held_out/pass@1_high": step / 50 + 0.0625}
        rows.append(row)
    return rows


def card(page: Any, title: str) -> Any:
    found = page.locator(f'[data-panel="{title}"]')
    found.scroll_into_view_if_needed()
    found.locator(".u-wrap").wait_for()
    return found


def readout(page: Any, title: str) -> str:
    return " ".join(card(page, title).locator(".readout").inner_text().split())


def numbers(page: Any, title: str) -> list[list[str]]:
    """The table of a card, row by row."""
    shown = card(page, title)
    shown.get_by_role("button", name="numbers as a table").click()
    return table(shown)


def table(shown: Any) -> list[list[str]]:
    rows = shown.locator(".numbers tr")
    return [rows.nth(i).locator("th, td").all_inner_texts() for i in range(rows.count())]


def lines(page: Any, metric: str, half: int) -> Any:
    """The lines that are drawn of a metric, as the page computes them."""
    return page.evaluate(
        """([metric, half]) => {
            const { page } = sharpen.data;
            return sharpen.panels.lines({ metrics: [metric] }, page.runs, { half, band: page.seeds });
        }""",
        [metric, half],
    )


def test_the_numbers_are_those_of_the_run(opened: Open, tmp_path: Path) -> None:
    rows = rows_of()
    page = opened([run_folder(tmp_path / "run", rows)], "curves")
    assert readout(page, "Held-out pass@1") == "step 40 80.0 % [73.8, 86.3]"
    assert readout(page, "Entropy") == "step 40 0.4"
    found = numbers(page, "Reward")
    assert found[0] == ["step", "Reward"]
    assert [row[0] for row in found[1:]] == [str(step) for step in range(1, 41)]
    assert [float(row[1]) for row in found[1:]] == pytest.approx([row["reward/mean"] for row in rows[1:]], abs=5e-5)
    assert numbers(page, "Held-out pass@1")[1:3] == [["0", "0.0 % [−6.25, 6.25]"], ["10", "20.0 % [13.8, 26.3]"]]
    # What never changes is said in words and not drawn.
    assert "Failed rewards 0.0 %" in page.locator(".curve-group", has_text="Reward").locator(".flat").inner_text()
    assert page.locator('[data-panel="Failed rewards"]').count() == 0


def test_keys_move_the_cursor_of_all_charts_and_enter_shows_the_rollouts(opened: Open, tmp_path: Path) -> None:
    page = opened([run_folder(tmp_path / "run", rows_of())], "curves?metric=entropy")
    assert readout(page, "Entropy") == "step 40 0.4"
    for key in ("Home", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
    page.wait_for_function("document.querySelector('[data-panel=Entropy] .readout').innerText.includes('step 3')")
    # Smoothed over one step to each side: the line is straight, so nothing changes.
    assert readout(page, "Entropy") == "step 3 1.88 smoothed 1.88"
    assert readout(page, "Log-probability") == "step 3 −1.88 smoothed −1.88"
    # The step that is nearest among those whose completions are on disk.
    page.evaluate("sharpen.data.page.runs[0].steps.training = [1, 4, 20]")
    page.locator('[data-panel="Entropy"]').focus()
    page.keyboard.press("Enter")
    page.wait_for_function("location.hash.startsWith('#rollouts')")
    assert page.evaluate("new URLSearchParams(location.hash.split('?')[1]).get('step')") == "4"


def test_smoothing_is_the_mean_of_the_steps_around_and_off_is_the_run_itself(opened: Open, tmp_path: Path) -> None:
    rows = rows_of()
    page = opened([run_folder(tmp_path / "run", rows)], "curves")
    raw = [row["reward/mean"] for row in rows[1:]]
    [off] = lines(page, "reward/mean", 0)
    assert (off["step"], off["smooth"]) == (list(range(1, 41)), None)
    assert off["raw"] == pytest.approx(raw, rel=1e-6)
    [smoothed] = lines(page, "reward/mean", 2)
    expected = []
    for i in range(40):
        half = min(2, i, 39 - i)
        window = raw[i - half : i + half + 1]
        expected.append(sum(window) / len(window))
    assert smoothed["smooth"] == pytest.approx(expected, rel=1e-6)
    assert smoothed["raw"] == off["raw"]
    # Held-out measures have their own intervals.
    assert lines(page, "held_out/pass@1", 2)[0]["smooth"] is None
    page.locator("#smoothing").fill("0")
    card(page, "Reward")
    assert page.locator(".smoothing output").inner_text() == "off"
    ends(page, "Reward")
    assert "smoothed" not in readout(page, "Reward")


def test_smoothing_is_that_of_the_picture_of_a_run(opened: Open, tmp_path: Path) -> None:
    page = opened([run_folder(tmp_path / "run", rows_of())], "curves")
    values = [math.sin(i / 7) + (i * 37 % 11) / 10 for i in range(200)]
    # The picture's window is a tenth of the values: 10 to each side.
    drawn = page.evaluate("([steps, values]) => sharpen.panels.smooth(steps, values, 10)", [list(range(200)), values])
    assert drawn == pytest.approx(smooth(np.array(values)).tolist(), rel=1e-9)


def test_a_constant_metric_that_a_finding_names_is_shown_in_words(opened: Open, tmp_path: Path) -> None:
    page = opened([run_folder(tmp_path / "run", rows_of())], "curves?metric=reward/failed")
    page.wait_for_function("document.activeElement.classList.contains('flat')")
    assert page.evaluate("document.activeElement.innerText") == "The same at every step: Failed rewards 0.0 %."


def test_time_and_tokens_are_those_up_to_each_step(opened: Open, tmp_path: Path) -> None:
    page = opened([run_folder(tmp_path / "run", rows_of())], "curves")
    page.get_by_role("button", name="tokens", exact=True).click()
    found = numbers(page, "Entropy")
    assert found[0] == ["step", "tokens", "Entropy"]
    assert [found[1], found[40]] == [["1", "50", "1.96"], ["40", "2,000", "0.4"]]
    page.get_by_role("button", name="time", exact=True).click()
    # 2 s a step, and 1 s for each of the evaluations at steps 0 and 10.
    found = table(card(page, "Entropy"))
    assert [found[1][1], found[10][1]] == ["3 s", "22 s"]


def test_seeds_are_their_mean_with_a_band_from_the_lowest_to_the_highest(opened: Open, tmp_path: Path) -> None:
    shifts = (-0.125, 0.0, 0.25)
    runs = [run_folder(tmp_path / f"seed_{i}", rows_of(shift)) for i, shift in enumerate(shifts)]
    page = opened(runs, "curves", seeds=True)
    [band] = lines(page, "reward/mean", 0)
    values = [[row["reward/mean"] for row in rows_of(shift)[1:]] for shift in shifts]
    at_each_step = list(zip(*values, strict=True))
    assert band["raw"] == pytest.approx([sum(v) / 3 for v in at_each_step], rel=1e-6)
    assert band["low"] == pytest.approx([min(v) for v in at_each_step], rel=1e-6)
    assert band["high"] == pytest.approx([max(v) for v in at_each_step], rel=1e-6)
    assert readout(page, "Reward").startswith("step 40 mean of 3 seeds 0.4417 [0.275, 0.65]")
    page.get_by_label("seeds as mean and range").uncheck()
    assert readout(page, "Reward") == "latest seed_0 0.275 seed_1 0.4 seed_2 0.65"


def test_a_run_can_be_left_out_of_the_picture(opened: Open, tmp_path: Path) -> None:
    runs = [run_folder(tmp_path / name, rows_of(shift)) for name, shift in (("one", 0.0), ("two", 0.25))]
    page = opened(runs, "curves")
    assert readout(page, "Reward") == "latest one 0.4 two 0.65"
    page.locator(".legend").get_by_role("button", name="one").click()
    assert readout(page, "Reward") == "step 40 two 0.65"


def test_a_logarithmic_scale_is_there_where_all_is_positive(opened: Open, tmp_path: Path) -> None:
    page = opened([run_folder(tmp_path / "run", rows_of())], "curves")
    assert card(page, "Entropy").get_by_role("button", name="logarithmic scale").count() == 1
    assert card(page, "Log-probability").get_by_role("button", name="logarithmic scale").count() == 0


def test_only_what_is_near_the_screen_is_drawn(opened: Open, tmp_path: Path) -> None:
    rows = [{"step": step, **{f"own/{i}": float(step * i) for i in range(1, 201)}} for step in range(1, 20)]
    page = opened([run_folder(tmp_path / "run", rows)], "curves")
    page.locator(".u-wrap").first.wait_for()
    assert page.locator(".curve").count() == 200
    page.locator("#smoothing").fill("1")
    assert 3 <= page.locator(".u-wrap").count() <= 30
    assert readout(page, "own/200") == "step 19 3,800"


def test_a_run_that_goes_on_keeps_the_zoom(opened: Open, tmp_path: Path) -> None:
    page = opened([run_folder(tmp_path / "run", rows_of())], "curves?metric=entropy")
    over = card(page, "Entropy").locator(".u-over")
    box = over.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 40, steps=4)
    page.mouse.up()
    page.get_by_role("button", name="Reset zoom").wait_for()
    assert ends(page, "Entropy") == ["step 11 1.56", "step 20 1.2"]
    page.evaluate(
        """() => {
            const series = sharpen.data.page.runs[0].series;
            const values = { entropy: [0.25], "own/figure": [7] };
            sharpen.data.append(series, { step: [41], time_s: [90], tokens: [2050], values });
            sharpen.views.find((view) => view.id === "curves").update();
        }"""
    )
    assert ends(page, "Entropy") == ["step 11 1.56", "step 20 1.2"]
    # What the page had not heard of is there too.
    assert readout(page, "own/figure").startswith("step 41 7")
    page.get_by_role("button", name="Reset zoom").click()
    assert ends(page, "Entropy") == ["step 1 1.96", "step 41 0.25"]


def ends(page: Any, title: str) -> list[str]:
    """The first and the last step that a chart shows: where Home and End move its cursor."""
    card(page, title).focus()
    found = []
    for key in ("Home", "End"):
        page.keyboard.press(key)
        page.wait_for_timeout(100)
        found.append(readout(page, title).partition(" smoothed")[0])
    return found


def test_every_metric_has_its_first_latest_lowest_and_highest_value(opened: Open, tmp_path: Path) -> None:
    page = opened([run_folder(tmp_path / "run", rows_of())], "metrics")
    cells = page.locator('tr[data-metric="reward/mean"] td.number').all_inner_texts()
    assert cells == ["0.26", "0.4", "0.02", "0.64"]
    assert page.locator('tr[data-metric="held_out/pass@1"] td.number').all_inner_texts() == [
        "0.0 %",
        "80.0 %",
        "0.0 %",
        "80.0 %",
    ]
    assert page.locator('tr[data-metric="held_out/pass@1_low"]').count() == 0
    page.get_by_role("searchbox").fill("entropy no longer")
    assert page.locator("tr[data-metric]:visible").count() == 1
    page.get_by_role("button", name="Entropy").click()
    assert readout(page, "Entropy") == "step 40 0.4"


def test_a_name_of_anybodys_is_text(opened: Open, tmp_path: Path) -> None:
    wild = "reward/<img src=x onerror=alert(1)>\u202e"
    rows = [
        {"step": step, wild: float(step), "__proto__": float(step), "constructor": 2.0 * step} for step in (1, 2, 3)
    ]
    run = run_folder(tmp_path / "run", rows)
    # The other run has no metric of these names.
    page = opened([run, run_folder(tmp_path / "other", rows_of())], "metrics")
    assert page.locator("img").count() == 0
    assert page.locator(".metrics-table").inner_text().count("<img src=x onerror=alert(1)>U+202E") == 2
    assert page.locator('tr[data-metric="constructor"] td.number').all_inner_texts() == ["2", "6", "2", "6"]
