"""Runs made ill on purpose, what the terminal says of them, and a healthy one of which it says nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from sharpen.cli.app import app
from sharpen.launch.run import resume, start
from sharpen.report.diagnosis import watch as watching
from sharpen.report.diagnosis.facts import Facts
from sharpen.report.page import findings as of_page
from sharpen.report.page.findings import findings
from sharpen.runs.folder import RunFolder
from sharpen.system.note import Note
from tiny_runs import assert_left_the_same, left_behind, tiny_recipe, tiny_start_model, tiny_tree

NOT_MEASURED: dict[str, Any] = {"evaluation": {"every": 0}, "checkpoint": {"best": None}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("ill") / "model")


def said(run: Path, model: Path, name: str = "grpo", **changes: Any) -> list[str]:
    """What a run says that warns."""
    lines: list[str] = []
    start(tiny_recipe(run, model, name, **{**NOT_MEASURED, **changes}), say=lines.append)
    return [line for line in lines if not isinstance(line, Note)]


def ids(run: Path) -> list[str]:
    """The findings that the page has."""
    folder = RunFolder(run)
    return [one["id"] for one in findings(folder, folder.read_metrics())]


def never(completion: str, **row: object) -> float:
    return 0.0


def by_length(completion: str, **row: object) -> float:
    return len(completion) / 8


def raising(completion: str, **row: object) -> float:
    """Raises for completions of even length: no digit of a tiny model's words is at fault."""
    if len(completion) % 2 == 0:
        raise ValueError("even")
    return float(len(completion) > 4)


def any_digit(completion: str, **row: object) -> float:
    return float(any(c.isdigit() for c in completion))


def test_a_reward_that_is_always_0(model: Path, tmp_path: Path) -> None:
    """Six steps of four prompts with four completions, of at most two tokens: few end before."""
    [line] = said(tmp_path / "run", model, reward=never, rollout={"max_new_tokens": 2})
    assert line.startswith(
        "step 5: Every reward is 0. So it was for all 80 completions of steps 1 to 5, and nothing is learned from "
        "equal rewards. "
    )
    assert "% of completions reached max_new_tokens (2): they were cut off unfinished." in line
    assert ids(tmp_path / "run") == ["all_rewards_zero"]
    folder = RunFolder(tmp_path / "run")
    [shown] = findings(folder, folder.read_metrics())
    assert (shown["severity"], shown["steps"], shown["source"]) == ("problem", [1, 6], "metrics")


def test_a_reward_that_raises(model: Path, tmp_path: Path) -> None:
    lines = said(tmp_path / "run", model, reward=raising, rollout={"max_reward_failures": 1.0})
    [line] = [line for line in lines if "Rewards fail" in line]
    assert line.startswith("step 3: Rewards fail.")
    assert "ValueError: even" in line


def test_a_reward_that_is_the_length(model: Path, tmp_path: Path) -> None:
    lines = said(
        tmp_path / "run",
        model,
        reward=by_length,
        training={"steps": 8, "prompts_per_step": 8},
        method={"group_size": 8},
    )
    assert any("The reward follows the length: longer is better." in line for line in lines)
    assert "length_decides_reward" in ids(tmp_path / "run")


def test_an_absurd_learning_rate(model: Path, tmp_path: Path) -> None:
    """A model that writes some digits loses them at a rate of 1."""
    lines = said(
        tmp_path / "run",
        model,
        reward=any_digit,
        training={"steps": 10, "prompts_per_step": 8},
        optimizer={"learning_rate": 1.0, "warmup_steps": 0, "schedule": "constant"},
    )
    assert any("has lost what it could do" in line or "KL runs away" in line for line in lines), lines
    assert {"kl_runs_away", "all_rewards_zero"} & {*ids(tmp_path / "run")}


def test_sft_at_an_absurd_learning_rate(model: Path, tmp_path: Path) -> None:
    lines = said(
        tmp_path / "run",
        model,
        "sft",
        training={"steps": 20, "prompts_per_step": 4},
        optimizer={"learning_rate": 10.0, "warmup_steps": 0, "schedule": "constant"},
    )
    assert any("The training loss is above where it began." in line for line in lines), lines


@pytest.mark.parametrize("name", ["grpo", "sft", "dpo", "ppo", "reward_model"])
def test_short_runs_are_quiet(name: str, model: Path, tmp_path: Path) -> None:
    """Six steps of a model that gets some of the reward."""
    assert said(tmp_path / "run", model, name, reward=by_length) == []


def test_each_finding_is_said_once_and_not_again_by_a_resumed_run(model: Path, tmp_path: Path) -> None:
    tree = tiny_tree(
        tmp_path / "run",
        model,
        "grpo",
        reward=f"{__file__}:never",
        training={"steps": 16},
        rollout={"max_new_tokens": 2},
        **NOT_MEASURED,
    )
    tree["checkpoint"] = {"every": 1, "keep": 20}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree))
    whole = CliRunner().invoke(app, ["run", str(tmp_path / "recipe.yaml"), "-q"])
    assert whole.exit_code == 0, whole.output
    assert whole.stderr.count("Every reward is 0") == 1
    assert "step 5: Every reward is 0" in whole.stderr

    for step, again in ((3, ["step 5: Every reward is 0"]), (8, [])):
        for later in range(step + 1, 17):
            weights = tmp_path / "run" / "checkpoints" / f"step_{later:06d}" / "model.safetensors"
            weights.write_bytes(weights.read_bytes()[:-1])
        resumed = CliRunner().invoke(app, ["run", "--resume", str(tmp_path / "run"), "-q"])
        assert resumed.exit_code == 0, resumed.output
        lines = [line for line in resumed.stderr.splitlines() if line.startswith("step ")]
        assert [line[: len("step 5: Every reward is 0")] for line in lines] == again


def test_a_finding_of_samples_is_not_said_again_either(model: Path, tmp_path: Path) -> None:
    """The samples of the last steps are read from the folder."""
    recipe = tiny_recipe(
        tmp_path / "run",
        model,
        "grpo",
        **{
            **NOT_MEASURED,
            "reward": by_length,
            "method": {"group_size": 8},
            "training": {"steps": 14, "prompts_per_step": 8},
            "checkpoint": {"every": 1, "keep": 20, "best": None},
        },
    )

    def at_step(last: int) -> Callable[[int, object], bool]:
        return lambda step, metrics: step < last

    first: list[str] = []
    start(recipe, say=first.append, on_step=at_step(9))
    assert sum("The reward follows the length" in line for line in first) == 1
    rest: list[str] = []
    resume(tmp_path / "run", given={"reward": by_length}, say=rest.append)
    assert not [line for line in rest if "The reward follows the length" in line]


def test_a_resumed_run_does_without_damaged_samples_and_names_them(model: Path, tmp_path: Path) -> None:
    changes: dict[str, Any] = {**NOT_MEASURED, "checkpoint": {"every": 1, "keep": 20, "best": None}}
    start(tiny_recipe(tmp_path / "run", model, "grpo", reward=by_length, **changes), on_step=lambda step, _: step < 4)
    damaged = tmp_path / "run" / "samples" / "step_000003.parquet"
    damaged.write_bytes(damaged.read_bytes()[:50])
    lines: list[str] = []
    assert resume(tmp_path / "run", given={"reward": by_length}, say=lines.append).finished
    assert [line for line in lines if str(damaged) in line]
    assert ids(tmp_path / "run") == ["samples_damaged"]


def test_the_diagnosis_changes_nothing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, metrics and samples are those of a run without it."""
    changes: dict[str, Any] = {**NOT_MEASURED, "reward": by_length}
    start(tiny_recipe(tmp_path / "with", model, "grpo", **changes))
    monkeypatch.setattr(watching, "diagnose", lambda *_, **__: [])
    start(tiny_recipe(tmp_path / "without", model, "grpo", **changes))
    assert_left_the_same(tmp_path / "with", left_behind(tmp_path / "without"))


def test_a_fault_of_an_illness_is_said_once_and_ends_no_training(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(*_: object, **__: object) -> None:
        raise ZeroDivisionError("division by zero")

    monkeypatch.setattr(watching, "diagnose", faulty)
    monkeypatch.setattr(of_page, "diagnose", faulty)
    [line] = said(tmp_path / "run", model, reward=by_length)
    assert line.startswith("step 1: the diagnosis of this run failed and is off from here on; training goes on.")
    assert "ZeroDivisionError: division by zero (faulty, line " in line
    # Where nothing is lost by it, it is raised.
    with pytest.raises(ZeroDivisionError):
        ids(tmp_path / "run")


def test_the_same_of_a_saved_recipe_and_of_one_at_hand(model: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "run", model, "grpo", **NOT_MEASURED)
    saved, at_hand = Facts(yaml.safe_load(recipe.to_yaml())), Facts(recipe.model_dump(mode="json"))
    for name in ("method.eps_low", "rollout.max_new_tokens", "optimizer.max_grad_norm", "method.kl.target"):
        assert saved.get(name) == at_hand.get(name)
        assert saved.has(name)
    assert saved.completions_per_step == at_hand.completions_per_step == 16
    assert saved.clip_range == at_hand.clip_range == 0.2
