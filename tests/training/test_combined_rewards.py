"""Runs with several rewards side by side, one of which hangs."""

import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from sharpen.errors import RewardError
from sharpen.launch.run import resume, start
from sharpen.runs.folder import read_metrics
from tiny_runs import Raising, assert_left_the_same, digits, given, left_behind, tiny_recipe, tiny_start_model

REWARDS = """
import time

def digits(completion):
    time.sleep(0.0005 * (len(completion) % 3))
    return sum(c.isdigit() for c in completion) / 8

def plus(completion):
    return float("+" in completion)

def brief(completion):
    return None if completion.startswith("1") else 1 / (1 + len(completion))
"""

METHOD = {"name": "grpo", "group_size": 4, "combine": "normalise_then_sum"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("combined") / "model")


@pytest.fixture(scope="module")
def rewards(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    path = tmp_path_factory.mktemp("rewards") / "rewards.py"
    path.write_text(REWARDS)
    return [
        {"name": f"{path}:digits", "call": {"at_once": 4}},
        {"name": f"{path}:plus", "weight": 0.3},
        {"name": f"{path}:brief", "weight": 0.5},
        {"name": f"{path}:digits", "gate": {"at_least": 0.5, "otherwise": -0.2, "skip": True}},
    ]


class PowerCut(BaseException):
    """Nothing catches it."""


def test_a_run_with_rewards_side_by_side_resumes_bit_for_bit(
    model: Path, rewards: list[dict[str, Any]], tmp_path: Path
) -> None:
    def fall() -> None:
        raise PowerCut

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert start(tiny_recipe(whole, model, "grpo", method=METHOD, reward=rewards)).finished
    with pytest.raises(PowerCut):
        start(
            tiny_recipe(cut, model, "grpo", method=METHOD, reward=rewards),
            loggers=[Raising(lambda step: step == 3, fall)],
        )
    assert resume(cut).finished
    assert_left_the_same(cut, left_behind(whole))
    rows = read_metrics(whole)[1:]
    # Logged are all of the gate's values, and those of the others where it is open.
    assert all(row["reward/digits_2"] < row["reward/digits"] for row in rows)
    names = ("digits", "plus", "brief", "digits_2")
    for row in rows:
        assert row["grad_norm"] > 0
        assert row["time/reward_s"] >= max(row[f"time/reward/{name}_s"] for name in names) > 0
        assert (row["reward/failed"], row["reward/timed_out"], row["reward/retries"]) == (0, 0, 0)


def test_a_sample_whose_reward_hangs_is_masked_and_counted(model: Path, tmp_path: Path) -> None:
    hung: list[str] = []

    def judge(completion: str) -> float:
        if len(hung) < 1 and completion:
            hung.append(completion)
            time.sleep(1.5)
        return digits(completion)

    settings: dict[str, Any] = {
        "reward": "given below",
        "training": {"steps": 2},
        "evaluation": {"every": 0},
        "checkpoint": {"best": None},
    }
    recipe = tiny_recipe(tmp_path / "run", model, "grpo", **settings)
    run = start(given(recipe, {"reward": {"name": judge, "call": {"timeout_s": 0.5}}}))
    assert run.finished
    first, second = run.metric_rows()
    assert (first["reward/failed"], first["reward/timed_out"]) == (1 / 16, 1 / 16)
    assert (second["reward/failed"], second["reward/timed_out"]) == (0, 0)
    rows = pq.read_table(tmp_path / "run" / "samples" / "step_000001.parquet").to_pylist()
    (late,) = [row for row in rows if row["error"] is not None]
    assert late["error"] == "judge gave no value within 0.5 s"
    assert late["reward"] is None
    assert late["completion"] == hung[0]
    assert first["reward/mean"] == pytest.approx(
        sum(row["reward"] for row in rows if row["reward"] is not None) / 15, abs=1e-12
    )


def test_above_the_stated_rate_time_outs_stop_the_run_and_name_the_sample(model: Path, tmp_path: Path) -> None:
    calls: list[str] = []

    def judge(completion: str) -> float:
        calls.append(completion)
        time.sleep(1.5 if len(calls) % 5 == 0 else 0.0)
        return 1.0

    recipe = tiny_recipe(
        tmp_path / "run", model, "grpo", reward="given below", evaluation={"every": 0}, checkpoint={"best": None}
    )
    with pytest.raises(RewardError, match=r"3 of 16 completions \(3 of them took too long\).*judge gave no value"):
        start(given(recipe, {"reward": {"name": judge, "call": {"timeout_s": 0.5}}}))
