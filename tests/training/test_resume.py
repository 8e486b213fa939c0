"""Law 5: a run that is cut off anywhere and resumed ends bit for bit as if it had not been."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sharpen.errors import ChangedError, CheckpointError
from sharpen.launch.run import Run, resume, start
from sharpen.rewards import FunctionReward
from sharpen.runs.folder import read_metrics
from sharpen.training.trainer import Trainer
from tiny_runs import (
    TASK,
    Raising,
    assert_left_the_same,
    left_behind,
    reward_file,
    tiny_recipe,
    tiny_start_model,
)

METHODS = ("sft", "grpo")


class PowerCut(KeyboardInterrupt):
    """Nothing catches it, not even where a logger raises it."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("resume") / "model")


@pytest.fixture(scope="module")
def reward(tmp_path_factory: pytest.TempPathFactory) -> str:
    return reward_file(tmp_path_factory.mktemp("reward") / "reward.py")


@pytest.fixture(scope="module")
def whole(model: Path, reward: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What an uninterrupted run of each method leaves."""
    found = {}
    for method in METHODS:
        path = tmp_path_factory.mktemp("whole") / method
        assert start(tiny_recipe(path, model, method, reward=reward)).finished
        found[method] = left_behind(path)
    return found


def cut_off(after: int) -> Raising:
    def fall() -> None:
        raise PowerCut

    return Raising(lambda step: step == after, fall)


def test_the_uninterrupted_runs_did_something(whole: dict[str, dict[str, Any]]) -> None:
    for method in METHODS:
        rows = whole[method]["metrics"]
        assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5, 6]
        assert all(row["grad_norm"] > 0 for row in rows[1:])
        assert {row["step"] for row in rows if "held_out/reward" in row} == {0, 2, 4, 6}
    assert all(row["updates/applied"] == 4 for row in whole["grpo"]["metrics"][1:])
    assert len(whole["grpo"]["samples"]) == 6
    assert len({row["draw_id"] for rows in whole["grpo"]["samples"].values() for row in rows}) == 6 * 16
    assert whole["sft"]["samples"] == {}
    state = json.loads(whole["grpo"]["trainer/state.json"])
    assert state["collector"]["cursor"]["epoch"] == 2
    assert state["collector"]["next_draw"] == 96
    assert state["updates"] == {"policy": 24}


@pytest.mark.parametrize("method", METHODS)
def test_the_same_recipe_gives_the_same_run(
    method: str, model: Path, reward: str, whole: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    torch.manual_seed(99)
    start(tiny_recipe(tmp_path / "run", model, method, reward=reward))
    assert_left_the_same(tmp_path / "run", whole[method])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("cuts", [(0, 1), (3, 4), (2, 5, 6)])
def test_cut_off_between_a_steps_metrics_and_its_checkpoint(
    method: str, cuts: tuple[int, ...], model: Path, reward: str, whole: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """Steps 2, 4 and 6 have a checkpoint (and others, if their held-out reward is the best)."""
    path = tmp_path / "run"
    with pytest.raises(PowerCut):
        start(tiny_recipe(path, model, method, reward=reward), loggers=[cut_off(cuts[0])])
    for cut in cuts[1:]:
        with pytest.raises(PowerCut):
            resume(path, loggers=[cut_off(cut)])
    # The line that was being written, and what a sudden end leaves in the other places.
    with (path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "lo')
    (path / "samples" / "step_000006.partial").write_text("half")
    (path / "checkpoints" / ".partial_000006").mkdir()
    (path / "checkpoints" / ".partial_000006" / "model.safetensors").write_text("half")
    assert resume(path).finished
    assert_left_the_same(path, whole[method])


@pytest.mark.parametrize("call", [1, 33, 76, 101])
def test_cut_off_in_the_middle_of_a_step(
    call: int,
    model: Path,
    reward: str,
    whole: dict[str, dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reward judges 12 times per evaluation and 16 times per step: at the start, in and between steps."""
    calls = 0
    judge = FunctionReward._judge

    def falling(self: FunctionReward, *sample: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise PowerCut
        return judge(self, *sample)

    with monkeypatch.context() as patched:
        patched.setattr(FunctionReward, "_judge", falling)
        with pytest.raises(PowerCut):
            start(tiny_recipe(tmp_path / "run", model, "grpo", reward=reward))
    assert resume(tmp_path / "run").finished
    assert_left_the_same(tmp_path / "run", whole["grpo"])


@pytest.mark.parametrize("method", METHODS)
def test_a_stop_that_is_asked_for_is_taken_with_a_checkpoint(
    method: str, model: Path, reward: str, whole: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """Ctrl-C while step 2 is recorded ends the run after step 3, which otherwise would have no checkpoint."""
    interrupt = Raising(lambda step: step == 2, lambda: os.kill(os.getpid(), signal.SIGINT))
    handler = signal.getsignal(signal.SIGINT)
    said: list[str] = []
    path = tmp_path / "run"
    run = start(tiny_recipe(path, model, method, reward=reward), loggers=[interrupt], say=said.append)
    assert signal.getsignal(signal.SIGINT) is handler
    assert run == Run(path, path / "checkpoints" / "step_000003", finished=False)
    assert any("stopping after this step" in line for line in said)
    assert [row["step"] for row in read_metrics(path)] == [0, 1, 2, 3]
    assert resume(path).finished
    assert_left_the_same(path, whole[method])


def test_a_stop_in_the_first_evaluation_is_taken_after_the_first_step(
    model: Path, reward: str, whole: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    interrupt = Raising(lambda step: step == 0, lambda: os.kill(os.getpid(), signal.SIGINT))
    path = tmp_path / "run"
    run = start(tiny_recipe(path, model, "grpo", reward=reward), loggers=[interrupt])
    assert run == Run(path, path / "checkpoints" / "step_000001", finished=False)
    assert resume(path).finished
    assert_left_the_same(path, whole["grpo"])


def test_the_second_interrupt_ends_the_run_at_once(
    model: Path, reward: str, whole: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    path = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        start(tiny_recipe(path, model, "grpo", reward=reward), loggers=[Raising(lambda step: step == 3, twice)])
    assert resume(path).finished
    assert_left_the_same(path, whole["grpo"])


def test_stop_requested_from_another_part_of_the_program(
    model: Path, reward: str, whole: dict[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Trainer.train_step

    def stopping(self: Trainer) -> Any:
        self.stop_requested = self.stop_requested or self.step == 5
        return step(self)

    path = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "train_step", stopping)
        assert not start(tiny_recipe(path, model, "sft", reward=reward)).finished
    assert resume(path).finished
    assert_left_the_same(path, whole["sft"])


SCRIPT = """
import sys
from sharpen.recipe.loading import load_recipe
from sharpen.launch.run import start
start(load_recipe(sys.argv[1]))
"""


def test_killed_at_a_random_instant(model: Path, reward: str, whole: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    """SIGKILL in another process, somewhere in its third to fifth step; the pause makes steps last 0.2 s."""
    path = tmp_path / "run"
    file = Path(reward.partition(":")[0])
    recipe = tiny_recipe(path, model, "grpo", reward=reward_file(file, pause_s=0.01))
    written = tmp_path / "recipe.yaml"
    written.write_text(recipe.to_yaml())
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen([sys.executable, "-c", SCRIPT, str(written)], env=environment)
    try:
        patience = time.monotonic() + 60
        while not (path / "metrics.jsonl").exists() or len((path / "metrics.jsonl").read_text().splitlines()) < 3:
            assert process.poll() is None
            assert time.monotonic() < patience
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.5))
    finally:
        process.kill()
        process.wait()
    reached = len((path / "metrics.jsonl").read_text().splitlines())
    assert process.returncode == -signal.SIGKILL, f"it had ended, after {reached} rows"
    reward_file(file)
    assert resume(path).finished
    assert_left_the_same(path, whole["grpo"])


# Checkpoints that cannot be used


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGE: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "a flipped bit": ("model.safetensors", flip, "model.safetensors: damaged"),
    "a missing file": ("trainer/optimizer.safetensors", Path.unlink, "optimizer.safetensors: missing"),
    "no manifest": ("manifest.json", Path.unlink, "no manifest.json"),
    "a truncated file": ("trainer/state.json", lambda f: f.write_text(f.read_text()[:-9]), "state.json: damaged"),
}


@pytest.mark.parametrize(("kind", "keep"), list(zip(DAMAGE, [1, 2, 2, 1], strict=True)))
def test_a_damaged_checkpoint_is_passed_over_by_name_and_the_one_before_used(
    kind: str, keep: int, model: Path, reward: str, whole: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """And it never pushes a sound one out, even where only one is kept."""
    path = tmp_path / "run"
    recipe = tiny_recipe(path, model, "grpo", reward=reward)
    with pytest.raises(PowerCut):
        start(recipe, loggers=[cut_off(5)])
    checkpoints = path / "checkpoints"
    before = {int(c.name.removeprefix("step_")) for c in checkpoints.glob("step_*")}
    assert {2, 4} <= before
    name, damage, said = DAMAGE[kind]
    damage(checkpoints / "step_000004" / name)
    written = path / "recipe.yaml"
    written.write_text(written.read_text().replace("keep: 2", f"keep: {keep}"))

    messages: list[str] = []
    with pytest.raises(PowerCut):
        resume(path, loggers=[cut_off(4)], say=messages.append)
    assert any(line.startswith("skipped a checkpoint: ") and said in line for line in messages)
    assert any("step_000004" in line for line in messages)
    assert f"continuing from {checkpoints / 'step_000002'}" in messages
    run = resume(path)
    assert run.model == checkpoints / "step_000006"
    assert_left_the_same(path, whole["grpo"])


def test_a_stop_before_the_damaged_step_leaves_its_own_checkpoint(
    model: Path, reward: str, whole: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    """The damaged checkpoint of step 5 has the higher number; it must neither be kept for it nor given back."""
    path = tmp_path / "run"
    with pytest.raises(PowerCut):
        start(
            tiny_recipe(path, model, "grpo", reward=reward, checkpoint={"every": 1, "keep": 4, "best": None}),
            loggers=[cut_off(6)],
        )
    checkpoints = path / "checkpoints"
    for step in (3, 4, 5):
        flip(checkpoints / f"step_{step:06d}" / "model.safetensors")
    written = path / "recipe.yaml"
    written.write_text(written.read_text().replace("keep: 4", "keep: 1").replace("  every: 1", "  every: 0"))
    step = Trainer.train_step

    def stopping(self: Trainer) -> Any:
        self.stop_requested = True
        return step(self)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Trainer, "train_step", stopping)
        run = resume(path)
    assert run == Run(path, checkpoints / "step_000003", finished=False)
    assert resume(path).finished
    expected = {name: value for name, value in whole["grpo"].items() if name != "trainer/state.json"}
    assert_left_the_same(path, expected)


def test_where_no_checkpoint_is_sound_nothing_is_begun_anew(model: Path, reward: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(PowerCut):
        start(tiny_recipe(path, model, "sft", reward=reward), loggers=[cut_off(3)])
    for checkpoint in (path / "checkpoints").glob("step_*"):
        flip(checkpoint / "model.safetensors")
    with pytest.raises(CheckpointError, match="no checkpoint is sound"):
        resume(path)


def test_a_finished_run_stays_as_it_is(model: Path, reward: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    done = start(tiny_recipe(path, model, "sft", reward=reward))
    before = left_behind(path)
    said: list[str] = []
    assert resume(path, say=said.append) == done
    assert said == [f"{path} is finished: 6 steps are done"]
    assert left_behind(path) == before


def test_a_run_may_be_moved(model: Path, reward: str, whole: dict[str, dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(PowerCut):
        start(tiny_recipe(tmp_path / "here", model, "sft", reward=reward), loggers=[cut_off(3)])
    (tmp_path / "here").rename(tmp_path / "there")
    assert resume(tmp_path / "there").finished
    assert_left_the_same(tmp_path / "there", whole["sft"])
    assert not (tmp_path / "here").exists()


ACCEPT = "to go on with this, which is then recorded: --accept-changes, in Python accept_changes=True"
ANSWERED = """
def right(completion, answer):
    return float(completion == answer)
"""


@pytest.mark.parametrize("part", ["train", "held_out"])
def test_other_answers_to_the_same_prompts_are_refused(part: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "reward.py").write_text(ANSWERED)

    def write(name: str, answer: str) -> str:
        rows = [{"prompt": f"{a}+1=", "answer": answer, "id": answer} for a in range(4)]
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return str(tmp_path / f"{name}.jsonl")

    data = {"task": None, "train": write("train", "1"), "held_out": write("held_out", "1")}
    run = tmp_path / "run"
    with pytest.raises(PowerCut):
        start(tiny_recipe(run, model, "grpo", data=data, reward=f"{tmp_path}/reward.py:right"), loggers=[cut_off(3)])
    path = write(part, "99")
    named = "the training data" if part == "train" else "`data.held_out`"
    with pytest.raises(ChangedError) as refused:
        resume(run)
    assert str(refused.value).splitlines() == [
        f"{run}: not what this run was started with:",
        f"- {named}: {path} has other values in column `answer`",
        ACCEPT,
    ]
    write(part, "1")
    assert resume(run).finished


def test_other_data_or_another_reference_are_refused(reward: str, tmp_path: Path) -> None:
    model = tiny_start_model(tmp_path / "model")
    path = tmp_path / "run"
    with pytest.raises(PowerCut):
        start(tiny_recipe(path, model, "grpo", reward=reward), loggers=[cut_off(3)])
    written = path / "recipe.yaml"
    text = written.read_text()
    written.write_text(text.replace("train_size=10", "train_size=11"))
    flip(model / "model.safetensors")
    with pytest.raises(ChangedError) as refused:
        resume(path)
    # Of long values, 100 characters.
    other = TASK.replace("train_size=10", "train_size=11")
    assert str(refused.value).splitlines() == [
        f"{path}: not what this run was started with:",
        "- the training data: arithmetic (train) has 11 rows, 10 before",
        "- the reference model has other weights",
        f'- `data.task` was "{TASK[:99]}… and is now "{other[:99]}…',
        ACCEPT,
    ]
