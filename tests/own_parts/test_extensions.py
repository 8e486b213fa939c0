"""What a user adds without an edit of ours works wherever what is ours does.

Each part stands in one file beside the recipe. A run with it is killed and resumed, measured, talked to, used as the
next stage's model, and seen in a dry run.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import yaml
from own_max_rl import MaxRL
from own_task import Counting
from typer.testing import CliRunner

from sharpen.batch import Batch
from sharpen.cli.app import app
from sharpen.data.collate import collate
from sharpen.data.tasks import resolve_task
from sharpen.launch.run import start
from sharpen.recipe.loading import load_recipe
from sharpen.types import Group, Prompt, Score, single_turn
from tiny_runs import assert_left_the_same, left_behind, merge, tiny_start_model, tiny_tree

HERE = Path(__file__).parent

PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    "reward": ("own_rewards.py", {"reward": "{file}:digits"}),
    "async reward": ("own_rewards.py", {"reward": {"name": "{file}:judged", "at_most": 4}}),
    "task": ("own_task.py", {"data": {"task": "{file}:Counting?digits=3"}, "reward": "task"}),
    "method": ("own_max_rl.py", {"method": {"name": "{file}:MaxRL", "group_size": 4}}),
    "engine": (
        "own_noting_engine.py",
        {"rollout": {"engine": {"name": "{file}:NotingEngine", "settings": {"notes": "{folder}/notes"}}}},
    ),
    "logger": ("own_logger.py", {"log": {"loggers": [{"name": "{file}:CsvLogger", "columns": ["loss"]}]}}),
}
"""A part's file, and the settings that name it."""

KILLED = """
import os, signal, sys
from sharpen.runs.folder import RunFolder

append = RunFolder.append_metrics

def append_and_die(self, row):
    append(self, row)
    if row["step"] == 3:
        os.kill(os.getpid(), signal.SIGKILL)

RunFolder.append_metrics = append_and_die
from sharpen.cli.app import main
sys.argv = ["sharpen", "run", sys.argv[1], "--quiet"]
main()
"""
"""``sharpen run``, which is killed in its third step."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("extensions") / "model")


def sharpen(*arguments: object, said: str | None = None) -> str:
    """What a command prints on standard output; it must succeed."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=said)
    assert result.exit_code == 0, result.output
    return result.stdout


def recipe_file(folder: Path, model: Path, part: str) -> Path:
    """A recipe of four steps that names the part, whose file stands beside it."""
    name, settings = PARTS[part]
    file = Path(shutil.copy(HERE / name, folder / name))
    filled = json.loads(json.dumps(settings).replace("{file}", str(file)).replace("{folder}", str(folder)))
    grpo = {"method": {"name": "grpo", "group_size": 4, "updates_per_rollout": 1, "minibatches": 1, "beta": 0.0}}
    changes = {"training": {"steps": 4}, "reward": f"{HERE / 'own_rewards.py'}:digits", "checkpoint": {"every": 2}}
    tree = tiny_tree(folder / "run", model, "grpo")
    tree["method"] = filled.pop("method", grpo["method"])
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(merge(merge(tree, changes), filled)))
    return path


@pytest.mark.parametrize("part", PARTS)
def test_a_part_of_ones_own_works_wherever_one_of_ours_does(part: str, model: Path, tmp_path: Path) -> None:
    path = recipe_file(tmp_path, model, part)
    whole = start(load_recipe(path, [f"run={tmp_path / 'whole'}"]))
    expected = left_behind(whole.path, 4)
    rewards = [row["reward"] for row in pq.read_table(whole.path / "samples" / "step_000004.parquet").to_pylist()]
    assert len(set(rewards)) > 1

    killed = subprocess.run([sys.executable, "-c", KILLED, str(path)], capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    run = tmp_path / "run"
    sharpen("run", "--resume", run, "--quiet")
    assert_left_the_same(run, expected, 4)

    measured = json.loads(sharpen("eval", run, "--json"))
    held_out = expected["metrics"][-1]
    assert measured["measures"]["reward"]["mean"] == pytest.approx(held_out["held_out/reward"], abs=0)
    assert sharpen("chat", run, "--temperature", 0, "--max-new-tokens", 3, "--seed", 1, said="1+1=\n").strip()

    assert PARTS[part][0] in "".join(sharpen("run", path, f"run={tmp_path / 'dry'}", "--dry-run").split())
    assert not (tmp_path / "dry").exists()
    later = [f"run={tmp_path / 'next'}", f"model.path={run}", "training.steps=1", "optimizer.warmup_steps=0"]
    sharpen("run", path, *later, "checkpoint.best=null", "--quiet")
    assert (tmp_path / "next" / "checkpoints" / "step_000001").is_dir()


def test_max_rl_divides_by_the_mean_of_the_group() -> None:
    """Rewards 1, 0, 0, 1 with mean 0.5: ±1. Rewards 3, 1 with mean 2: ±0.5. No reward at all: 0."""
    prompts = [Prompt(str(number), (1,), "p", {}) for number in range(3)]
    rewards = [(1.0, 0.0, 0.0, 1.0), (3.0, 1.0), (0.0, 0.0)]
    groups = [
        Group(prompt, tuple(single_turn((1,), (2,), "x") for _ in its)).scored([Score(reward) for reward in its])
        for prompt, its in zip(prompts, rewards, strict=True)
    ]
    batch: Batch = collate(groups)
    assert MaxRL().advantages(batch).squeeze(1).tolist() == [1, -1, -1, 1, 0.5, -0.5, 0, 0]
    assert torch.equal(MaxRL().weights(batch).sum(), torch.tensor(1.0))


def test_a_task_of_ones_own_takes_its_parameters_from_the_recipe() -> None:
    assert resolve_task(f"{HERE / 'own_task.py'}:Counting?digits=3").train_rows()[0] == {"prompt": "012=", "next": "3"}
    assert Counting().held_out_rows()[4] == {"prompt": "90=", "next": "1"}
    assert Counting().verify("1", next="1") == 0.5625
    assert Counting().verify("2=34", next="1") == 0.1875


def test_the_page_says_what_each_part_costs() -> None:
    """As many lines as the page says, in one file each, and a method in at most 30."""
    page = (HERE.parents[1] / "CONTRIBUTING.md").read_text()
    costs = {"a reward": 0, "a task": 0, "a method": 0, "an engine": 0, "a logger": 0}
    for cost in costs:
        ((name, lines),) = re.findall(rf"\| {cost} \| \[`tests/own_parts/(\w+\.py)`\]\(.*?\) \| (\d+) \|", page)
        assert len((HERE / name).read_text().splitlines()) == int(lines), name
    assert len((HERE / "own_max_rl.py").read_text().splitlines()) <= 30
