"""An engine is made only where a run samples; whatever the architecture, the other runs need none."""

from __future__ import annotations

import json
from math import isfinite
from pathlib import Path
from typing import Any

import pytest

from one_thread import one_thread as one_thread
from sharpen.errors import ModelError
from sharpen.launch.run import start
from sharpen.models.policy import Policy
from sharpen.recipe.loading import make_recipe
from sharpen.rollout.settings import EngineSettings
from sharpen.runs.folder import RunFolder, read_metrics
from tiny_models import tiny_folder
from tiny_runs import digits, tiny_recipe, tiny_tree

OFF: dict[str, Any] = {"evaluation": {"every": 0}, "checkpoint": {"best": None}, "training": {"steps": 2}}


def no_engine(settings: EngineSettings, policy: Policy) -> Any:
    raise ModelError(f"{policy.source}: this engine cannot sample from a model of type {policy.config.model_type}")


@pytest.fixture
def without_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sharpen.launch.build.make_engine", no_engine)


@pytest.mark.usefixtures("without_engine")
@pytest.mark.parametrize("name", ["sft", "dpo"])
def test_training_on_given_completions_makes_no_engine(name: str, tmp_path: Path) -> None:
    model = tiny_folder(tmp_path / "model", "mamba")
    run = start(tiny_recipe(tmp_path / "run", model, name, **OFF))
    assert run.finished
    assert all(isfinite(row["loss"]) for row in read_metrics(tmp_path / "run"))


@pytest.mark.usefixtures("without_engine")
def test_held_out_completions_need_no_engine(tmp_path: Path) -> None:
    """Without a reward, the loss is measured on them."""
    model = tiny_folder(tmp_path / "model", "mamba")
    rows = "".join(json.dumps({"prompt": f"{n}+1=", "completion": str(n + 1)}) + "\n" for n in range(8))
    (tmp_path / "rows.jsonl").write_text(rows)
    tree = tiny_tree(tmp_path / "run", model, "sft", **OFF)
    tree["data"] = {"train": str(tmp_path / "rows.jsonl"), "held_out": str(tmp_path / "rows.jsonl")}
    tree["evaluation"] = {"every": 2}
    assert start(make_recipe(tree)).finished


@pytest.mark.usefixtures("without_engine")
def test_held_out_answers_alone_are_named_before_the_first_step(tmp_path: Path) -> None:
    model = tiny_folder(tmp_path / "model", "mamba")
    changes = {**OFF, "evaluation": {"every": 2}, "reward": digits}
    with pytest.raises(ModelError, match=r"cannot sample from a model of type mamba.*held-out answers.*data\.held_out"):
        start(tiny_recipe(tmp_path / "run", model, "sft", **changes))
    assert not RunFolder(tmp_path / "run").metrics.exists()


@pytest.mark.usefixtures("without_engine")
def test_sampling_for_training_needs_an_engine(tmp_path: Path) -> None:
    model = tiny_folder(tmp_path / "model", "mamba")
    with pytest.raises(ModelError, match=r"cannot sample from a model of type mamba$"):
        start(tiny_recipe(tmp_path / "run", model, "grpo", reward=digits, **OFF))


@pytest.mark.parametrize("architecture", ["mamba", "falcon_h1", "gemma4_text", "minimax", "qwen2_5_vl"])
@pytest.mark.parametrize("name", ["grpo", "dpo"])
@pytest.mark.filterwarnings("ignore:.*sampled from slowly")
def test_a_whole_run(architecture: str, name: str, tmp_path: Path) -> None:
    model = tiny_folder(tmp_path / "model", architecture)
    changes = {**OFF, "reward": digits} if name == "grpo" else OFF
    assert start(tiny_recipe(tmp_path / "run", model, name, **changes)).finished
    rows = read_metrics(tmp_path / "run")
    assert [row["step"] for row in rows] == [1, 2]
    assert all(isfinite(value) for row in rows for value in row.values())
