import io

from rich.console import Console, RenderableType
from rich.text import Text

from sharpen.evaluation.estimators import Estimate
from sharpen.report.table import Answer, Example, before_after_table, examples_panel, format_estimate, measures_table

NAN = float("nan")


def printed(renderable: RenderableType, width: int = 100) -> str:
    out = io.StringIO()
    Console(file=out, width=width).print(renderable)
    return out.getvalue()


def lines_with(text: str, word: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if word in line]


def test_measures_before_and_after() -> None:
    before = {
        "pass@1": Estimate(0.512, 0.48, 0.544),
        "pass@64": Estimate(1.0, 0.99, 1.0),
        "length": Estimate(31, 30, 32),
    }
    after = {
        "pass@1": Estimate(0.8942, 0.87, 0.916),
        "pass@64": Estimate(0.99, NAN, NAN),
        "math/pass@1": Estimate(0.5, 0.4, 0.6),
        "my_figure": Estimate(0.5, 0.4, 0.6),
    }
    text = printed(before_after_table(before, after))
    assert lines_with(text, " pass@1 ") == ["pass@1 51.2 % [ 48.0, 54.4] 89.4 % [ 87.0, 91.6] +38.2"]
    assert lines_with(text, "pass@64") == ["pass@64 100.0 % [ 99.0, 100.0] 99.0 % -1.0"]
    assert lines_with(text, "length") == ["length 31.0 [ 30.0, 32.0] – –"]
    assert lines_with(text, "math") == ["math/pass@1 – 50.0 % [ 40.0, 60.0] –"]
    assert lines_with(text, "my_figure") == ["my_figure – 0.500 [0.400, 0.600] –"]
    assert "95 % intervals" in text


def test_losses_scores_and_margins_are_no_shares() -> None:
    measures = {
        "loss": Estimate(0.6931, 0.6, 0.7),
        "pair_accuracy": Estimate(0.75, NAN, NAN),
        "pair_margin": Estimate(0.25, NAN, NAN),
        "score": Estimate(-0.5, NAN, NAN),
        "reward/share": Estimate(0.5, NAN, NAN),
    }
    text = printed(measures_table(measures))
    assert lines_with(text, "loss") == ["loss 0.693 [0.600, 0.700]"]
    assert lines_with(text, "accuracy") == ["pair_accuracy 75.0 %"]
    assert lines_with(text, "margin") == ["pair_margin 0.250"]
    assert lines_with(text, "score") == ["score -0.500"]
    assert lines_with(text, "reward") == ["reward/share 0.500"]


def test_a_change_is_green_where_it_is_for_the_better() -> None:
    names = ("pass@1", "truncated", "loss", "reward", "length", "my_figure", "shows its work")
    low = {name: Estimate(0.25, NAN, NAN) for name in names}
    high = {name: Estimate(0.5, NAN, NAN) for name in names}
    table = before_after_table(low, high, plain=["loss", "reward", "length", "my_figure"])
    styles = [cell.style for cell in table.columns[3]._cells if isinstance(cell, Text)]
    assert dict(zip(names, styles, strict=True)) == {
        "pass@1": "green",
        "truncated": "red",
        "loss": "red",
        "reward": "green",
        "length": "",
        "my_figure": "",
        "shows its work": "green",
    }


def test_no_change_has_no_sign() -> None:
    same = {"pass@1": Estimate(0.5, 0.4, 0.6)}
    nearly = {"pass@1": Estimate(0.5002, 0.4, 0.6)}
    assert lines_with(printed(before_after_table(same, nearly)), "pass@1")[0].endswith(" 0.0")
    assert format_estimate(Estimate(NAN, NAN, NAN)) == "–"


def test_examples_mark_the_right_answers() -> None:
    examples = [
        Example("23+45-12=", "56", [Answer("57", False), Answer("56", True)], [Answer("68-12=56", True)]),
        Example("Write a sentence.", None, [Answer(" ", False)], [Answer("A cat.", True)]),
    ]
    text = printed(examples_panel(examples))
    assert lines_with(text, "57") == ["│ ✗ 57 ✓ 68-12=56 │"]
    assert lines_with(text, "expected") == ["│ expected: 56 │"]
    assert lines_with(text, "cat") == ["│ ✗ (empty) ✓ A cat. │"]


def test_what_a_model_writes_is_shown_and_not_obeyed() -> None:
    wild = "[red]a[/red] \x1b[31mb [/nothing]" + "x" * 300
    text = printed(examples_panel([Example("p", None, [Answer(wild, False)], [])], max_chars=50))
    assert r"[red]a[/red] \x1b[31mb" in text
    assert "\x1b" not in text
    assert text.count("x") < 50
    assert "…" in text


def test_lengths_and_rewards_of_a_data_source_are_no_shares() -> None:
    measures = {
        "add/length": Estimate(3.4, 2.2, 4.0),
        "add/reward": Estimate(0.2, 0.1, 0.3),
        "add/pass@1": Estimate(0.5, 0.4, 0.6),
    }
    text = printed(measures_table(measures))
    assert lines_with(text, "add/length") == ["add/length 3.400 [2.200, 4.000]"]
    assert lines_with(text, "add/reward") == ["add/reward 0.200 [0.100, 0.300]"]
    assert lines_with(text, "add/pass@1") == ["add/pass@1 50.0 % [ 40.0, 60.0]"]
