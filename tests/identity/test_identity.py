"""That the comparison of two versions notices whatever differs, and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from identity.cases import REWARDS, cases, recipe
from identity.contents import Renames, contents, differences
from sharpen.methods import METHODS
from tiny_runs import tiny_start_model

TREE = Path(__file__).parents[2]
RUNNER = Path(__file__).with_name("run_recipes.py")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same run by two processes."""
    folder = tmp_path_factory.mktemp("identity")
    (folder / "rewards.py").write_text(REWARDS)
    model = tiny_start_model(folder / "model")
    found = []
    for name in ("before", "now"):
        tree = recipe("rft", "rft", {}, folder=folder / name, model=model, rewards=folder / "rewards.py")
        file = folder / f"{name}.yaml"
        file.write_text(yaml.safe_dump(tree))
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        subprocess.run([sys.executable, RUNNER, TREE, file], check=True, timeout=300, env=environment)
        found.append(Path(tree["run"]))
    return found[0], found[1]


def test_two_processes_train_the_same_bits(runs: tuple[Path, Path]) -> None:
    before, now = (contents(run) for run in runs)
    assert differences(before, now) == []
    kinds = ("checkpoints/step_000006/model", "checkpoints/step_000006/trainer/optimizer", "metrics/6/", "samples/")
    for kind in (*kinds, "checkpoints/step_000006/trainer/state.json/step", "kept.jsonl/0/token_ids"):
        assert any(name.startswith(kind) for name in now), kind


def _one_bit(run: Path) -> str:
    file = run / "checkpoints" / "step_000006" / "model.safetensors"
    tensors = load_file(file)
    name = "lm_head.weight"
    tensors[name].view(torch.int32)[0, 0] ^= 1
    save_file(tensors, file)
    return f"checkpoints/step_000006/model.safetensors/{name}"


def _one_metric(run: Path) -> str:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rows[-1]["loss"] += 1e-15
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "metrics/6/loss"


def _one_sample(run: Path) -> str:
    file = run / "samples" / "step_000000.parquet"
    table = pq.read_table(file).to_pydict()
    table["completion"][0] += "0"
    pq.write_table(pa.table(table), file)
    return "samples/step_000000.parquet/completion"


def _one_state(run: Path) -> str:
    file = run / "checkpoints" / "step_000004" / "trainer" / "state.json"
    state = json.loads(file.read_text())
    state["step"] = 5
    file.write_text(json.dumps(state))
    return "checkpoints/step_000004/trainer/state.json/step"


@pytest.mark.parametrize("change", [_one_bit, _one_metric, _one_sample, _one_state])
def test_the_least_difference_is_named(change: Callable[[Path], str], runs: tuple[Path, Path], tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    subprocess.run(["cp", "-r", runs[1], changed], check=True)
    name = change(changed)
    [line] = differences(contents(runs[0]), contents(changed))
    assert line.startswith(f"{name}: ")


def test_what_was_renamed_is_compared_under_its_new_name(runs: tuple[Path, Path]) -> None:
    renames = Renames(metrics={"loss": "policy/loss"}, columns={"reward": "score"}, state={"step": "steps"})
    renamed = contents(runs[0], renames)
    assert renamed["metrics/6/policy/loss"] == contents(runs[1])["metrics/6/loss"]
    lines = differences(renamed, contents(runs[1]))
    assert lines
    assert all(line.endswith((": only before", ": only now")) for line in lines)


def test_every_method_is_a_case() -> None:
    assert set(METHODS) <= set(cases(list(METHODS)))
