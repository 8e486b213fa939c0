"""Tokens in a browser: their colours by sign, the numbers at the cursor, what is said of why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shown_runs import page_run, sample, tokens

Open = Callable[..., Any]

# KL took 0.25 from the coefficient of the second token; the last one was clipped, and the third is not trained on.
STREAMS: dict[str, list[Any]] = {
    "coefficient": [1.5, 1.25, None, -0.5, 0.0],
    "advantage": [1.5, 1.5, None, -0.5, 1.5],
    "ratio": [1.0, 1.0, None, 0.875, 1.5],
    "clipped": [False, False, None, False, True],
    "logprob": [-0.5, -0.25, None, -2.0, -0.125],
    "old_logprob": [-0.5, -0.25, None, -2.0, -0.125],
    "rollout_logprob": [-0.5, -0.375, None, -2.0, -0.125],
    "kl": [0.0, 0.125, None, 0.0, 0.0],
    "step_reward": [None, 0.75, None, None, -1.0],
    "weight": [0.25, 0.25, 0.0, 0.25, 0.25],
}
TEXTS = ["So", " 4", "\n", "  ", "</b>"]


@pytest.fixture
def page(opened: Open, tmp_path: Path) -> Any:
    recorded = {**tokens(TEXTS, **STREAMS), "loss_mask": [True, True, False, True, True]}
    rows = [sample("2+2=", "So 4", 1.0, **recorded), sample("2+2=", "5", 0.0, **tokens(["5"], coefficient=[-1.0]))]
    return opened([page_run(tmp_path / "run", {4: rows})], "tokens?step=4&row=0")


def numbers(page: Any) -> dict[str, str]:
    names = page.locator(".readout dl dt").all_inner_texts()
    return dict(zip(names, page.locator(".readout dl dd").all_inner_texts(), strict=True))


def test_tokens_are_coloured_and_marked_by_the_sign_of_their_coefficient(page: Any) -> None:
    found = page.locator(".token")
    assert found.all_inner_texts() == ["So", " 4", "↵\n", "··", "</b>"]
    classes = [element.get_attribute("class").split() for element in found.all()]
    assert [("up" in one, "down" in one) for one in classes] == [
        (True, False),
        (True, False),
        (False, False),
        (False, True),
        (False, False),
    ]
    assert "untrained" in classes[2]
    assert "without" in classes[2]
    tints = [element.evaluate("e => e.style.getPropertyValue('--tint')") for element in found.all()]
    # The scale ends at the 98th percentile of four magnitudes, the third largest: 1.25.
    assert "var(--up) 70%" in tints[0]
    assert "var(--up) 70%" in tints[1]
    assert tints[2] == tints[4] == ""
    # 8 + 62 · 0.5/1.25
    assert "var(--down) 33%" in tints[3]


def test_the_numbers_at_the_cursor_by_keyboard_and_by_pointer(page: Any) -> None:
    page.locator(".tokens").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator(".readout h3").inner_text() == "token 2:  4"
    assert numbers(page) == {
        "id": "11",
        "gradient coefficient": "1.25",
        "advantage": "1.5",
        "ratio π/π_old": "1",
        "clipped": "no",
        "log π": "−0.25",
        "π_old − rollout": "0.125",
        "KL to the reference": "0.125",
        "step rewards": "0.75",
        "weight": "0.25",
        "log π_old": "−0.25",
        "log π in the rollout": "−0.375",
    }
    assert page.locator(".token.current").inner_text() == " 4"
    page.keyboard.press("End")
    assert numbers(page)["clipped"] == "yes"
    page.locator(".token").first.hover()
    assert page.locator(".readout h3").inner_text() == "token 1: So"
    # The first of five tokens on a strip that is 1000 wide.
    assert page.locator(".strip .cursor").get_attribute("x1") == "100"


@pytest.mark.parametrize(
    ("token", "why"),
    [
        (0, "Pushed up: its advantage is 1.5, a better completion than its baseline."),
        (1, "Pushed up: its advantage is 1.5; −0.25 comes from the other terms (ratio, KL, importance weight)."),
        (2, "Not trained on: the policy did not draw it, or it is masked."),
        (3, "Pushed down: its advantage is −0.5, a worse completion than its baseline."),
        (4, "Not pushed: its gradient is 0, as of a clipped token."),
    ],
)
def test_why_a_token_was_pushed(page: Any, token: int, why: str) -> None:
    page.locator(".token").nth(token).click()
    assert page.locator(".readout p").inner_text() == why


def test_other_streams_and_their_legends(page: Any) -> None:
    offered = page.get_by_label("Colour by").locator("option").all_inner_texts()
    assert "value" not in offered
    assert "entropy" not in offered
    page.get_by_label("Colour by").select_option("ratio π/π_old")
    page.locator(".scale", has_text="less likely").wait_for()
    # From the middle, 1: 0.875 is below, 1.5 above; the scale ends at the third largest distance, 0.125.
    assert page.locator(".scale .ends span").all_inner_texts() == [
        "▼ 0.875, less likely",
        "1",
        "▲ 1.13, more likely than when drawn",
    ]
    assert page.locator(".token.up").all_inner_texts() == ["</b>"]
    assert page.locator(".token.down").all_inner_texts() == ["··"]
    assert page.locator(".step-end").all_inner_texts() == ["0.75", "−1"]


def test_what_was_pushed_most_leads_to_its_token(page: Any) -> None:
    pushed = page.locator(".extremes").first.locator("button")
    assert pushed.all_inner_texts() == ["So 1.5", " 4 1.25"]
    pushed.nth(1).click()
    assert page.locator(".token.current").inner_text() == " 4"


def test_the_next_completion_and_back_to_its_group(page: Any) -> None:
    page.get_by_label("Completion after").click()
    page.locator(".token", has_text="5").wait_for()
    assert page.locator(".readout p").inner_text() == "Pushed down."
    page.get_by_role("button", name="its group").click()
    page.locator(".completion").first.wait_for()
    assert page.locator(".step").inner_text() == "step 4"


def test_all_numbers_are_in_sight_and_the_legend_has_its_scale(page: Any) -> None:
    readout = page.locator(".readout")
    assert readout.evaluate("e => e.scrollHeight <= e.clientHeight")
    last, box = readout.locator("dd").last.bounding_box(), readout.bounding_box()
    assert last["y"] + last["height"] <= box["y"] + box["height"]
    assert page.locator(".ramp").bounding_box()["width"] > 400
    left, _, right = (one.bounding_box() for one in page.locator(".scale .ends span").all())
    assert right["x"] - left["x"] > 300


def test_the_focus_stays_on_what_was_used(page: Any) -> None:
    page.get_by_label("Completion after").focus()
    page.keyboard.press("Enter")
    page.locator(".token", has_text="5").wait_for()
    # That was the last one, so its button is off; the choice of a stream goes on from where it is.
    page.get_by_label("Completion before").focus()
    page.keyboard.press("Enter")
    page.locator(".token", has_text="So").wait_for()
    page.get_by_label("Colour by").focus()
    page.get_by_label("Colour by").select_option("advantage")
    page.locator(".scale", has_text="better than expected").wait_for()
    assert page.evaluate("document.activeElement.ariaLabel") == "Colour by"


SLOWLY = """() => {
    const chunk = sharpen.data.chunk;
    sharpen.data.chunk = (id, name) =>
        new Promise((done) => setTimeout(done, name.endsWith("/0") ? 600 : 100)).then(() => chunk(id, name));
}"""


def test_what_arrives_late_does_not_replace_another_view(page: Any) -> None:
    page.evaluate(SLOWLY)
    page.evaluate("sharpen.go('metrics')")
    page.locator(".metrics-table").wait_for()
    page.evaluate("sharpen.go('tokens', {step: 4, row: 0})")
    page.wait_for_timeout(150)
    page.evaluate("sharpen.go('metrics')")
    page.wait_for_timeout(900)
    assert page.locator(".metrics-table").is_visible()
    assert page.locator(".tokens").count() == 0


def test_the_completion_asked_for_last_is_shown_though_another_arrives_later(page: Any) -> None:
    page.evaluate(SLOWLY)
    page.evaluate("sharpen.go('tokens', {step: 4, row: 0, stream: 'ratio'})")
    page.wait_for_timeout(150)
    page.evaluate("sharpen.go('tokens', {step: 4, row: 1})")
    page.wait_for_timeout(1000)
    assert page.locator(".token").all_inner_texts() == ["5"]
    assert "row 1" in page.locator(".token-page").inner_text()


def test_four_thousand_tokens_move_at_once(opened: Open, tmp_path: Path) -> None:
    texts = [f" w{t}" if t % 50 else "\n" for t in range(4000)]
    recorded = tokens(texts, coefficient=[(t % 7) - 3.0 for t in range(4000)])
    page = opened([page_run(tmp_path / "run", {1: [sample("p", "".join(texts), 1.0, **recorded)]})], "tokens")
    page.locator(".token").nth(3999).wait_for(state="attached")
    # The scale and the strip stay beside a text of many screens.
    strip = page.locator(".strip").bounding_box()
    assert strip["y"] + strip["height"] <= 900
    page.locator(".tokens").focus()
    page.keyboard.press("End")
    assert page.locator(".readout h3").inner_text() == "token 4000:  w3999"
    assert page.locator(".token.current").inner_text() == " w3999"
    spent = page.evaluate(
        """() => {
            const line = document.querySelector(".tokens");
            const start = performance.now();
            for (let i = 0; i < 20; i += 1) {
                line.dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowLeft"}));
                line.offsetHeight;
            }
            return (performance.now() - start) / 20;
        }"""
    )
    assert page.locator(".readout h3").inner_text() == "token 3980:  w3979"
    assert spent < 200, "milliseconds a key, the layout with it"


def test_a_completion_that_cannot_be_read_is_said(page: Any) -> None:
    page.evaluate("() => { sharpen.data.chunk = () => Promise.reject(new Error('the file <b>is gone</b>')) }")
    page.get_by_label("Completion after").click()
    assert page.get_by_role("alert").inner_text() == "the file <b>is gone</b>"
