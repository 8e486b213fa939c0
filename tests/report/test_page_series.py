"""The metrics as the page draws them: every number of a short run, and of a long one all that a picture needs."""

import itertools
import json
import math

import pytest

from sharpen.report.page.series import MOST_ROWS, series_data


def test_a_short_run_is_there_with_every_number() -> None:
    rows = [
        {"step": 0, "held_out/pass@1": 0.5, "time/evaluation_s": 2.0},
        {"step": 1, "loss": 0.125, "time/step_s": 1.5, "time/rollout_s": 0.5, "tokens_per_s/rollout": 100.0},
        {"step": 2, "loss": math.nan, "time/step_s": 1.0, "time/rollout_s": 0.25, "tokens_per_s/rollout": 200.0},
        {"step": 3, "loss": math.inf, "time/step_s": 1.0, "time/evaluation_s": 2.0, "held_out/pass@1": 0.75},
    ]
    data = series_data(rows)
    assert data["step"] == [0, 1, 2, 3]
    assert data["time_s"] == [2.0, 3.5, 4.5, 7.5]
    assert data["tokens"] == [0, 50, 100, 100]
    assert data["values"]["loss"] == [None, 0.125, None, None]
    assert data["values"]["held_out/pass@1"] == [0.5, None, None, 0.75]
    assert "step" not in data["values"]
    json.dumps(data, allow_nan=False)


def test_tokens_are_those_trained_on_where_none_are_drawn() -> None:
    rows = [{"step": i, "time/training_s": 0.5, "tokens_per_s/training": 30.0} for i in (1, 2)]
    assert series_data(rows)["tokens"] == [15, 30]


def test_no_rows_are_no_points() -> None:
    assert series_data([]) == {"step": [], "time_s": [], "tokens": [], "values": {}}


def long_run() -> list[dict[str, float]]:
    """10,000 steps with a held-out measure every 100, two spikes of one step and one step where a share is not 0."""
    rows: list[dict[str, float]] = [
        {"step": i, "grad_norm": 1.0 + 0.1 * math.sin(i), "reward/failed": 0.0, "entropy": 2.0 - i / 10_000}
        for i in range(10_000)
    ]
    rows[4_321]["grad_norm"], rows[7_777]["grad_norm"], rows[5_005]["reward/failed"] = 900.0, 800.0, 0.25
    for i in range(0, 10_000, 100):
        rows[i]["held_out/pass@1"] = i / 10_000
    return rows


def test_a_long_run_is_thinned_and_keeps_what_stands_out() -> None:
    rows = long_run()
    data = series_data(rows)
    steps, norms = data["step"], data["values"]["grad_norm"]
    assert MOST_ROWS * 0.75 < len(steps) <= MOST_ROWS
    assert steps == sorted(set(steps))
    assert (steps[0], steps[-1]) == (0, 9_999)
    # Both spikes, not only the highest, and the smallest value.
    assert [norms[steps.index(step)] for step in (4_321, 7_777)] == [900.0, 800.0]
    assert min(norms) == pytest.approx(min(row["grad_norm"] for row in rows), rel=1e-6)
    assert data["values"]["reward/failed"][steps.index(5_005)] == 0.25
    held_out = [value for value in data["values"]["held_out/pass@1"] if value is not None]
    assert held_out == [i / 10_000 for i in range(0, 10_000, 100)]
    # No part of the run is left out: 10,000 / 2,000 rows are first rows of pairs are 11 apart.
    assert max(b - a for a, b in itertools.pairwise(steps)) <= 12


def test_time_and_tokens_count_the_rows_that_are_left_out() -> None:
    rows: list[dict[str, float]] = [
        {"step": i, "time/step_s": 1.0, "time/rollout_s": 0.5, "tokens_per_s/rollout": 20.0} for i in range(1, 5_001)
    ]
    data = series_data(rows, most=100)
    assert len(data["step"]) <= 100
    assert data["time_s"] == data["step"]
    assert data["tokens"] == [10 * step for step in data["step"]]


def test_the_bound_holds_for_many_metrics_and_many_evaluations() -> None:
    rows: list[dict[str, float]] = [
        {"step": i, "held_out/pass@1": 0.5, **{f"m{j}": float((i * (j + 7)) % 997) for j in range(80)}}
        for i in range(1_000)
    ]
    steps = series_data(rows, most=200)["step"]
    assert len(steps) <= 200
    assert (steps[0], steps[-1]) == (0, 999)
    assert max(b - a for a, b in itertools.pairwise(steps)) <= 50
