"""Rollouts that run ahead of training by a fixed number of versions."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from one_thread import one_thread
from plain_forward import plain_logprobs, plain_model
from sharpen.data.items import MadeItems
from sharpen.errors import CheckpointError, NonFiniteError, RecipeError
from sharpen.launch.run import resume, start
from sharpen.rollout.sources import Collected
from sharpen.runs.folder import read_metrics
from sharpen.training.ahead import pending_from_json, pending_to_json
from sharpen.training.learner import Learner
from sharpen.types import Finish, Group, Prompt, Score, StepValue, WeightedReward, single_turn
from tiny_runs import Raising, digits, given, tiny_recipe, tiny_start_model, untimed

__all__ = ["one_thread"]

STEPS = 6
CORRECTED = {"tis_cap": 2.0, "updates_per_rollout": 1, "minibatches": 1, "beta": 0.0}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("lag") / "model")


def recipe(run: Path, model: Path, lag: int, name: str = "grpo", **changes: Any) -> Any:
    settings = {
        "method": CORRECTED,
        "reward": "<given in Python>",
        "rollout": {"lag": lag},
        "evaluation": {"every": 0},
        "checkpoint": {"every": 1, "keep": 9, "best": None},
        **changes,
    }
    return tiny_recipe(run, model, name, **settings)


def samples(run: Path, step: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(run / "samples" / f"step_{step:06d}.parquet").to_pylist()
    return rows


def everything(run: Path) -> dict[str, Any]:
    """The bytes of every checkpoint, the samples, and the metrics without timings."""
    files = [file for file in sorted((run / "checkpoints").rglob("*")) if file.is_file()]
    return {
        **{str(file.relative_to(run)): file.read_bytes() for file in files},
        **{str(step): samples(run, step) for step in range(1, STEPS + 1)},
        "metrics": untimed(read_metrics(run)),
    }


def assert_same(run: Path, expected: dict[str, Any]) -> None:
    found = everything(run)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Runs that were never stopped, by their lag."""
    runs = {lag: tmp_path_factory.mktemp("whole") / str(lag) for lag in (0, 1, 2, 9)}
    for lag, run in runs.items():
        start(given(recipe(run, model, lag), {"reward": digits}))
    return runs


# What is trained on


@pytest.mark.parametrize("lag", [0, 1, 2, 9])
def test_the_batch_of_step_t_is_drawn_by_version_t_less_1_less_the_lag(lag: int, whole: dict[int, Path]) -> None:
    metrics = read_metrics(whole[lag])
    for step in range(1, STEPS + 1):
        version = max(0, step - 1 - lag)
        assert {row["policy_version"] for row in samples(whole[lag], step)} == {version}
        staleness = [metrics[step - 1].get(f"staleness/{which}") for which in ("mean", "max")]
        assert staleness == ([None, None] if version == step - 1 else [step - 1 - version] * 2)


@pytest.mark.parametrize("lag", [1, 2, 9])
def test_a_lag_changes_no_prompt_and_no_draw_id(lag: int, whole: dict[int, Path]) -> None:
    """Completions differ only once the version that draws them does."""
    for step in range(1, STEPS + 1):
        without, with_lag = samples(whole[0], step), samples(whole[lag], step)
        for column in ("prompt_id", "draw_id"):
            assert [row[column] for row in with_lag] == [row[column] for row in without]
    assert samples(whole[lag], 1) == samples(whole[0], 1)
    assert [row["draw_id"] for row in samples(whole[lag], 6)] == list(range(80, 96))


def test_the_log_probabilities_are_those_of_the_version_that_is_named(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """π_rollout is that of the checkpoint of that version, π_old that of the version before the step."""
    batches: list[Any] = []
    learn = Learner.learn

    def recording(self: Learner, groups: Any, *arguments: Any, **options: Any) -> Any:
        report = learn(self, groups, *arguments, **options)
        batches.append((groups, report.batch))
        return report

    monkeypatch.setattr(Learner, "learn", recording)
    fast: dict[str, Any] = {"method": {**CORRECTED, "updates_per_rollout": 2}}
    fast |= {"optimizer": {"learning_rate": 3e-2, "warmup_steps": 0, "schedule": "constant"}}
    run = tmp_path / "run"
    start(given(recipe(run, model, 2, **fast), {"reward": digits}))
    version = [plain_model(model), *(plain_model(run / "checkpoints" / f"step_{t:06d}") for t in range(1, STEPS))]
    for step, (groups, batch) in enumerate(batches, 1):
        drawn_by, now = version[max(0, step - 3)], version[step - 1]
        trajectories = [t for group in groups for t in group.trajectories]
        for e, trajectory in enumerate(trajectories):
            prefix, tokens = trajectory.last.prefix_ids, trajectory.token_ids
            with torch.no_grad():
                drawn, old = plain_logprobs(drawn_by, prefix, tokens), plain_logprobs(now, prefix, tokens)
            assert torch.allclose(torch.tensor(trajectory.last.logprobs), drawn, atol=2e-5)
            if batch["advantages"][e].any():
                assert torch.allclose(batch["old_logprobs"][e, : len(tokens)], old, atol=2e-5)
                assert step == 1 or (drawn - old).abs().max() > 1e-3


@pytest.mark.parametrize("method", [{"tis_cap": 2.0}, {"old": "rollout"}], ids=["tis_cap", "old rollout"])
def test_a_lag_of_one_learns(method: dict[str, Any], model: Path, tmp_path: Path) -> None:
    """To write eight digits: the mean reward begins at about a half."""
    run = tmp_path / "run"
    changes = {
        "method": {**CORRECTED, "tis_cap": None, **method},
        "training": {"steps": 30},
        "optimizer": {"learning_rate": 2e-2, "warmup_steps": 0, "schedule": "constant"},
        "checkpoint": {"every": 0, "best": None},
    }
    start(given(recipe(run, model, 1, **changes), {"reward": digits}))
    rewards = [row["reward/mean"] for row in read_metrics(run)]
    assert sum(rewards[:3]) / 3 < 0.6
    assert sum(rewards[-5:]) / 5 > 0.9


def test_the_time_of_a_step_is_that_of_what_it_drew(whole: dict[int, Path]) -> None:
    """The first step draws three batches, and the last two steps none."""
    rows = read_metrics(whole[2])
    assert ["time/rollout_s" in row for row in rows] == [True] * 4 + [False] * 2
    assert ["tokens_per_s/rollout" in row for row in rows] == [True] * 4 + [False] * 2
    for row in rows:
        assert sum(row.get(f"time/{part}_s", 0.0) for part in ("rollout", "reward", "training")) <= row["time/step_s"]


# What is refused


@pytest.mark.parametrize(
    ("method", "settings", "said"),
    [
        ("grpo", {}, "rollout.lag is 1, and method grpo does not correct for tokens that an older version of the "),
        ("ppo", {}, "rollout.lag is 1, and method ppo does not correct for tokens"),
        ("online_rft", {}, "rollout.lag is 1, and method online_rft does not correct for tokens"),
        ("sft", {}, "`rollout.lag` has no effect: only for a method that draws from the policy that it trains"),
        ("rft", {}, "`rollout.lag` has no effect: only for a method that draws from the policy that it trains"),
        ("reinforce", {"old": "rollout"}, "`method.old` has no effect: only with clip"),
        ("grpo", {"old": "rollout", "tis_cap": 2.0}, "`method.tis_cap` has no effect: only with old learner"),
    ],
)
def test_what_a_lag_cannot_go_with(
    method: str, settings: dict[str, Any], said: str, model: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe(tmp_path / "run", model, 1, method, method=settings)


# Resumed with batches that are drawn and not trained on


class PowerCut(KeyboardInterrupt):
    """Nothing catches it, not even where a logger raises it."""


def cut_off(after: int) -> Raising:
    def fall() -> None:
        raise PowerCut

    return Raising(lambda step: step == after, fall)


@pytest.mark.parametrize("lag", [1, 2, 9])
@pytest.mark.parametrize("cuts", [(1, 2), (3, 4, 6)])
def test_a_run_that_was_cut_off_trains_on_what_had_been_drawn(
    lag: int, cuts: tuple[int, ...], model: Path, whole: dict[int, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with pytest.raises(PowerCut):
        start(given(recipe(run, model, lag), {"reward": digits}), loggers=[cut_off(cuts[0])])
    for cut in cuts[1:]:
        with pytest.raises(PowerCut):
            resume(run, {"reward": digits}, loggers=[cut_off(cut)])
    assert resume(run, {"reward": digits}).finished
    assert_same(run, everything(whole[lag]))


def test_a_checkpoint_holds_as_many_batches_as_the_lag(whole: dict[int, Path]) -> None:
    held = []
    for step in range(1, STEPS + 1):
        file = whole[2] / "checkpoints" / f"step_{step:06d}" / "trainer" / "pending.json"
        held.append(len(json.loads(file.read_text())) if file.exists() else 0)
    assert held == [2, 2, 2, 2, 1, 0]


@pytest.mark.parametrize("lag", [1, 2])
def test_a_stop_that_is_asked_for(lag: int, model: Path, whole: dict[int, Path], tmp_path: Path) -> None:
    """Ctrl-C while step 2 is recorded: the run ends after step 3."""
    run = tmp_path / "run"
    interrupt = Raising(lambda step: step == 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    stopped = start(given(recipe(run, model, lag), {"reward": digits}), loggers=[interrupt])
    assert (stopped.finished, stopped.model.name) == (False, "step_000003")
    assert resume(run, {"reward": digits}).finished
    assert_same(run, everything(whole[lag]))


@pytest.mark.parametrize("lag", [1, 2])
def test_a_step_that_meets_nan(
    lag: int, model: Path, whole: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Step 4 has drawn a batch by then, which the checkpoint of step 3 must not hold."""
    run = tmp_path / "run"
    learn = Learner.learn

    def breaking(self: Learner, groups: Any, step: int, *arguments: Any, **options: Any) -> Any:
        if step == 4:
            raise NonFiniteError("the loss is NaN")
        return learn(self, groups, step, *arguments, **options)

    seldom = {"checkpoint": {"every": 0, "keep": 9, "best": None}}
    with monkeypatch.context() as patched:
        patched.setattr(Learner, "learn", breaking)
        with pytest.raises(NonFiniteError, match=r"step 4: the loss is NaN; the latest checkpoint is .*step_000003"):
            start(given(recipe(run, model, lag, **seldom), {"reward": digits}))
    expected = everything(whole[lag])
    folder = run / "checkpoints" / "step_000003"
    for name in ("trainer/pending.json", "trainer/state.json", "model.safetensors"):
        assert (folder / name).read_bytes() == expected[f"checkpoints/step_000003/{name}"]
    assert resume(run, {"reward": digits}).finished
    found = everything(run)
    # It has fewer checkpoints, and their list says so.
    listed = json.loads(found.pop("checkpoints/manifest.json"))["checkpoints"]
    assert listed.items() < json.loads(expected["checkpoints/manifest.json"])["checkpoints"].items()
    assert [name for name in found if found[name] != expected[name]] == []


@pytest.mark.parametrize("damage", ["missing", "damaged"])
def test_batches_that_are_lost_are_noticed(damage: str, model: Path, whole: dict[int, Path], tmp_path: Path) -> None:
    """The checkpoint before is used, and the run ends as if nothing had happened."""
    run = tmp_path / "run"
    with pytest.raises(PowerCut):
        start(given(recipe(run, model, 2), {"reward": digits}), loggers=[cut_off(5)])
    pending = run / "checkpoints" / "step_000004" / "trainer" / "pending.json"
    if damage == "missing":
        pending.unlink()
    else:
        pending.write_text(pending.read_text().replace('"versions": [3', '"versions": [4', 1))
    said: list[str] = []
    assert resume(run, {"reward": digits}, say=said.append).finished
    assert any(f"skipped a checkpoint: {pending}: {damage}" in line for line in said)
    shutil.rmtree(run / "checkpoints" / "damaged_step_000004")
    assert_same(run, everything(whole[2]))


# What a checkpoint holds


def test_groups_come_back_from_their_text_as_they_were() -> None:
    """All fields, and floats to the last bit."""
    prompts = [Prompt(name, (1, 2), name, {"prompt": name}) for name in "ab"]
    score = Score(
        0.1 + 0.2,
        {"right": 1 / 3, "short": None},
        (StepValue(1, 2 / 3),),
        "raised",
        True,
        2,
        (WeightedReward(0.7, 1e-300), WeightedReward(0.3, None)),
    )
    one = single_turn(
        (1, 2),
        (5, 6),
        "5\ud800é",
        loss_mask=(True, False),
        finish=Finish.LENGTH,
        logprobs=(-1 / 3, 0.0),
        versions=(3, -1),
    )
    drawn = Group(prompts[1], (one, single_turn((1, 2), (7,), "7", draw_id=4))).scored([score, Score(float("nan"))])
    aside = Group(prompts[0], (single_turn((1, 2), (8,), "8"),))
    before = [Collected([drawn], [aside], {"rollout": 1.5}, {"reused_tokens": 3}), Collected([aside])]
    text = pending_to_json(before, MadeItems(prompts))
    (first, second) = pending_from_json(text, MadeItems(prompts), "here")
    assert first.groups[0].prompt is prompts[1]
    assert repr(first.groups) == repr(before[0].groups)
    assert (first.set_aside, first.work) == ([aside], {"reused_tokens": 3})
    assert second == Collected([aside])
    with pytest.raises(CheckpointError, match="here: prompt 1 is not among the data's 1"):
        pending_from_json(text, MadeItems(prompts[:1]), "here")
