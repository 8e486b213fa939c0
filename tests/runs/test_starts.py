"""``starts.jsonl``: what each start of a run records, and what is read of a file that is not whole."""

import json
import os
import platform
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from sharpen.errors import DiskError
from sharpen.launch.run import resume, start
from sharpen.runs import starts
from sharpen.runs.starts import Starts
from tiny_runs import Raising, reward_file, tiny_recipe, tiny_start_model

SENTENCE = {"source": "policy", "reward": "verifier", "advantage": "group", "loss": "clip"}


def parameters_of(model: Path) -> int:
    with safe_open(model / "model.safetensors", "np") as file:
        return sum(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118


def test_each_start_of_a_run_is_a_line_with_what_only_that_process_knows(tmp_path: Path) -> None:
    model = tiny_start_model(tmp_path / "model")
    run, settings = tmp_path / "run", {"reward": reward_file(tmp_path / "reward.py"), "checkpoint": {"best": None}}
    seen: list[int] = []

    def fall() -> None:
        seen.append(len(Starts(run).read()))
        raise KeyboardInterrupt

    recipe = tiny_recipe(run, model, "grpo", **settings, evaluation={"prompts": 5})
    with pytest.raises(KeyboardInterrupt):
        start(recipe, loggers=[Raising(lambda step: step == 0, fall)])
    # It is there before the first step.
    assert seen == [1]
    with pytest.raises(KeyboardInterrupt):
        resume(run, loggers=[Raising(lambda step: step == 5, fall)])
    assert resume(run).finished
    # Nothing is done, so nothing is recorded.
    assert resume(run).finished
    lines = Starts(run).read()
    assert [line["step"] for line in lines] == [0, 0, 4]
    times = [datetime.fromisoformat(line["time"]) for line in lines]
    assert times == sorted(times)
    assert timedelta(0) <= datetime.now(UTC) - times[0] < timedelta(minutes=10)
    view = recipe.method.unified_view
    assert lines[0] == {
        "time": lines[0]["time"],
        "step": 0,
        "sentence": {"source": view.source, "reward": view.reward, "advantage": view.advantage, "loss": view.loss},
        "paper": view.paper,
        "parameters": parameters_of(model),
        "trained_parameters": parameters_of(model),
        "device": "cpu",
        "dtype": "float32",
        "threads": 1 if os.environ.get("OMP_NUM_THREADS") == "1" else lines[0]["threads"],
        "training_rows": 10,
        "held_out_rows": 5,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("sharpen", "torch", "transformers")},
        },
    }


def test_with_an_adapter_its_weights_alone_are_trained(tmp_path: Path) -> None:
    """Rank 2 on q, k, v, o (16 × 16) and gate, up, down (16 × 24), of two layers."""
    model = tiny_start_model(tmp_path / "model")
    lora: dict[str, Any] = {"model": {"lora": {"rank": 2, "alpha": 4}}}
    start(tiny_recipe(tmp_path / "run", model, "sft", training={"steps": 1}, **lora))
    [line] = Starts(tmp_path / "run").read()
    adapter = 2 * (4 * 2 * (16 + 16) + 3 * 2 * (16 + 24))
    assert line["trained_parameters"] == adapter
    assert line["parameters"] == parameters_of(model) + adapter


def test_what_is_no_whole_line_is_left_out_and_the_next_start_has_a_line_of_its_own(tmp_path: Path) -> None:
    recorded = Starts(tmp_path)
    recorded.write(0, sentence=SENTENCE)
    recorded.write(3, sentence=SENTENCE)
    whole = recorded.path.read_bytes()
    assert [line["step"] for line in recorded.read()] == [0, 3]
    recorded.path.write_bytes(whole[:-9])
    assert [line["step"] for line in recorded.read()] == [0]
    recorded.write(5, sentence=SENTENCE)
    assert [line["step"] for line in recorded.read()] == [0, 5]
    for damage in (
        b"\0" * 40,
        b"[" * 100_000,
        b'{"step": 4}',
        b"[1]",
        b'{"step": "4", "time": "", "versions": {}}',
        b"\xff",
    ):
        recorded.path.write_bytes(whole + damage + b"\n")
        assert [line["step"] for line in recorded.read()] == [0, 3], damage[:20]


def test_a_file_that_grew_too_long_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = Starts(tmp_path)
    for step in range(3):
        recorded.write(step)
    monkeypatch.setattr(starts, "MOST_BYTES", len(recorded.path.read_bytes()) - 5)
    assert [line["step"] for line in recorded.read()] == [0, 1]
    assert Starts(tmp_path / "none").read() == []


def test_starts_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    (tmp_path / "starts.jsonl").mkdir()
    with pytest.raises(DiskError, match=r"starts\.jsonl: the record of starts cannot be written: Is a directory"):
        Starts(tmp_path).write(0)


def test_it_is_on_disk_when_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fsync, flushed = os.fsync, dict[str, int]()

    def noted(descriptor: int) -> None:
        fsync(descriptor)
        flushed[os.readlink(f"/proc/self/fd/{descriptor}")] = os.fstat(descriptor).st_size

    monkeypatch.setattr(os, "fsync", noted)
    Starts(tmp_path).write(0)
    assert flushed[str(tmp_path / "starts.jsonl")] == len((tmp_path / "starts.jsonl").read_bytes())
    assert str(tmp_path) in flushed
    assert json.loads((tmp_path / "starts.jsonl").read_text())["step"] == 0
