"""What the runs of several seeds say together."""

import json
import math
from io import StringIO

import pytest
from rich.console import Console
from rich.table import Table

from sharpen.report.seeds import OverSeeds, mean_rows, means_table, over_seeds, values_table

# Half-widths by hand: t₂ = 4.3026527, s = 0.1, so 4.3026527 · 0.1/√3 = 0.2484138; of changes 0.2, 0.3, 0.1 the same.
RUNS: list[list[dict[str, float]]] = [
    [
        {"step": 0, "held_out/pass@1": before, "held_out/pass@1_low": 0.0, "held_out/pass@1_high": 1.0},
        {"step": 1, "reward/mean": 0.1, "loss": 0.0, "length/mean": length},
        {"step": 2, "reward/mean": reward, "loss": 0.0, "held_out/pass@1": after, "held_out/length": length},
    ]
    for before, after, reward, length in ((0.3, 0.5, 0.6, 10.0), (0.3, 0.6, 0.7, 20.0), (0.6, 0.7, 0.8, 30.0))
]
HALF = 0.2484138


def shown(table: Table) -> str:
    """The table as printed, with every run of white space as one space."""
    console = Console(width=100, file=StringIO())
    with console.capture() as capture:
        console.print(table)
    return " ".join(capture.get().split())


def test_each_measure_has_the_values_of_the_seeds_before_after_and_their_differences() -> None:
    found = over_seeds(RUNS)
    assert list(found) == ["held_out/pass@1", "held_out/length", "reward/mean"]
    assert found["held_out/pass@1"] == OverSeeds((0.5, 0.6, 0.7), (0.3, 0.3, 0.6))
    assert found["held_out/pass@1"].change == pytest.approx((0.2, 0.3, 0.1))
    # Not measured before the first step.
    assert found["held_out/length"] == OverSeeds((10.0, 20.0, 30.0))
    assert found["reward/mean"] == OverSeeds((0.6, 0.7, 0.8))


def test_without_a_reward_the_loss_is_reported_and_one_evaluation_is_no_before() -> None:
    runs = [[{"step": 1, "loss": loss}, {"step": 2, "loss": loss / 2, "held_out/loss": loss}] for loss in (2.0, 4.0)]
    assert over_seeds(runs) == {"held_out/loss": OverSeeds((2.0, 4.0)), "loss": OverSeeds((1.0, 2.0))}


def test_what_one_seed_has_not_measured_is_left_out() -> None:
    assert list(over_seeds([RUNS[0], RUNS[1][:2]])) == ["held_out/pass@1", "reward/mean"]
    assert over_seeds([RUNS[0], []]) == {}


def test_json_has_the_mean_its_interval_and_every_value() -> None:
    written = json.loads(json.dumps(over_seeds(RUNS)["held_out/pass@1"].to_json(), allow_nan=False))
    assert written["after"]["values"] == [0.5, 0.6, 0.7]
    assert written["after"]["mean"] == pytest.approx(0.6)
    assert (written["after"]["low"], written["after"]["high"]) == pytest.approx((0.6 - HALF, 0.6 + HALF), abs=1e-7)
    assert (written["change"]["low"], written["change"]["high"]) == pytest.approx((0.2 - HALF, 0.2 + HALF), abs=1e-7)
    one = json.loads(json.dumps(over_seeds(RUNS[:1])["reward/mean"].to_json(), allow_nan=False))
    assert one == {"after": {"mean": 0.6, "low": None, "high": None, "values": [0.6]}}


def test_the_tables_show_shares_in_percent_and_say_what_the_interval_is() -> None:
    measures = over_seeds(RUNS)
    means = shown(means_table(measures, (7, 8, 9)))
    assert "pass@1 (%) 40.0 ± 43.0 60.0 ± 24.8 +20.0 ± 24.8" in means
    assert "length – 20.0 ± 24.8 –" in means
    assert "training reward – 0.700 ± 0.248 –" in means
    assert "± 95 % interval of the mean over seeds, Student's t with 2 degrees of freedom" in means
    values = shown(values_table(measures, (7, 8, 9)))
    assert "measure seed 7 seed 8 seed 9" in values
    assert "pass@1 (%) 50.0 60.0 70.0" in values
    alone = shown(means_table(over_seeds(RUNS[:1]), (7,)))
    assert "pass@1 (%) 30.0 50.0 +20.0" in alone
    assert "one seed: no interval" in alone


def test_a_value_that_is_no_number_is_null_and_a_dash() -> None:
    measures = {"held_out/reward": OverSeeds((1.0, math.nan))}
    written = measures["held_out/reward"].to_json()
    assert written == {"after": {"mean": None, "low": None, "high": None, "values": [1.0, None]}}
    assert "reward – – –" in shown(means_table(measures, (1, 2)))
    assert "reward 1.000 –" in shown(values_table(measures, (1, 2)))


def test_the_mean_run_has_the_steps_that_all_have_and_the_interval_over_seeds() -> None:
    rows = mean_rows([*RUNS[:2], [*RUNS[2], {"step": 3, "loss": 1.0}]])
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert rows[1]["length/mean"] == 20.0
    assert rows[2]["reward/mean"] == pytest.approx(0.7)
    # The runs' own intervals over prompts are not averaged.
    assert (rows[2]["held_out/pass@1_low"], rows[2]["held_out/pass@1_high"]) == pytest.approx(
        (0.6 - HALF, 0.6 + HALF), abs=1e-7
    )
