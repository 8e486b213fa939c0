"""Law 5 for what the methods add to a run: critics, references that move, strengths that adapt, kept completions."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from sharpen.errors import CheckpointError
from sharpen.launch.models import load_model
from sharpen.launch.run import resume, start
from tiny_runs import Raising, assert_left_the_same, left_behind, reward_file, tiny_recipe, tiny_start_model

STEPS = 4
ADAPTIVE = {"target": 0.01, "rule": "proportional", "horizon": 64}
VARIANTS: dict[str, dict[str, Any]] = {
    "ppo": {"name": "ppo", "beta": 0.1, "kl": ADAPTIVE, "critic_learning_rate_ratio": 2.0},
    "ppo kl form, shared": {"name": "ppo", "form": "kl", "critic": "shared", "value_clip": 0.2},
    "grpo average": {"name": "grpo", "kl": {"reference": "average", "decay": 0.7, "estimator": "exact"}},
    "grpo reset": {"name": "grpo", "kl": {"reference": "reset", "reset_every": 3, "warmup_steps": 3}},
    "rft": {"name": "rft"},
    "dpo": {"name": "dpo"},
    "reward_model": {"name": "reward_model"},
    "process_reward_model": {"name": "process_reward_model"},
    "dapo": {"name": "dapo"},
}
"""Beside these, online methods without any of it are as GRPO is, which test_resume holds in every way."""

LEAVES = {
    "ppo": {"critic/model.safetensors", "trainer/optimizer_critic.safetensors"},
    "ppo kl form, shared": {"value_head.safetensors"},
    "grpo average": {"reference/model.safetensors"},
    "grpo reset": {"reference/model.safetensors"},
    "rft": {"kept.jsonl"},
}
ALWAYS = {"model.safetensors", "trainer/optimizer.safetensors", "trainer/state.json", "metrics", "samples", "held_out"}


class PowerCut(KeyboardInterrupt):
    """Nothing catches it, not even where a logger raises it."""


def cut_off(after: int) -> Raising:
    def fall() -> None:
        raise PowerCut

    return Raising(lambda step: step == after, fall)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("resume") / "model")


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> str:
    return reward_file(tmp_path_factory.mktemp("reward") / "reward.py")


def recipe_of(path: Path, model: Path, reward: str, name: str) -> Any:
    return tiny_recipe(
        path,
        model,
        VARIANTS[name]["name"],
        method=VARIANTS[name],
        reward=reward,
        training={"steps": STEPS},
        evaluation={"every": 0},
        checkpoint={"best": None},
    )


@pytest.mark.parametrize("name", VARIANTS)
def test_cut_off_between_a_steps_metrics_and_its_checkpoint(
    name: str, model: Path, reward: str, tmp_path: Path
) -> None:
    """After step 1 there is no checkpoint yet; after step 3 the one of step 2."""
    assert start(recipe_of(tmp_path / "whole", model, reward, name)).finished
    whole = left_behind(tmp_path / "whole", STEPS)
    assert whole.keys() == ALWAYS | LEAVES.get(name, set())
    assert all(row["grad_norm"] > 0 for row in whole["metrics"] if row["step"])
    cut = recipe_of(tmp_path / "cut", model, reward, name)
    with pytest.raises(PowerCut):
        start(cut, loggers=[cut_off(1)])
    with pytest.raises(PowerCut):
        resume(tmp_path / "cut", loggers=[cut_off(3)])
    assert resume(tmp_path / "cut").finished
    assert_left_the_same(tmp_path / "cut", whole, STEPS)


def test_what_adapts_goes_on_where_it_was(model: Path, reward: str, tmp_path: Path) -> None:
    """The level of step 3 is not the one that the run began with."""
    with pytest.raises(PowerCut):
        start(recipe_of(tmp_path / "run", model, reward, "ppo"), loggers=[cut_off(3)])
    resume(tmp_path / "run")
    strengths = [row["beta"] for row in left_behind(tmp_path / "run", STEPS)["metrics"]]
    assert len(set(strengths)) == STEPS


def test_kept_completions_that_were_changed_are_refused(model: Path, reward: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(PowerCut):
        start(recipe_of(path, model, reward, "rft"), loggers=[cut_off(3)])
    kept = path / "kept.jsonl"
    whole = kept.read_bytes()
    for damaged in (whole[:-2], whole.replace(b'"finish"', b'"Finish"', 1), b""):
        kept.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"kept\.jsonl: not what it was when .*step_000002 was written"):
            resume(path)
    kept.unlink()
    with pytest.raises(CheckpointError, match=r"kept\.jsonl: not what it was"):
        resume(path)
    kept.write_bytes(whole)
    assert resume(path).finished


@pytest.mark.parametrize("shift", range(1, 8))
def test_where_weights_begin_does_not_depend_on_their_file(shift: int, model: Path, tmp_path: Path) -> None:
    """Products of matrices round differently where it does: a checkpoint's would not be what the run's were."""
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt", "shift": "-" * 8 * shift})
    recipe = recipe_of(tmp_path / "run", folder, "unused", "ppo")
    for role in ("policy", "critic"):
        loaded = load_model(recipe.model, role, str(folder), seed=recipe.seed, trust_remote_code=False)
        assert {p.data_ptr() % 64 for p in loaded.model.parameters()} == {0}
        assert all(torch.equal(p, tensors[name]) for name, p in loaded.model.named_parameters() if name in tensors)
