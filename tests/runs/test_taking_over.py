"""The folder of a run that did no step is free for the corrected command; anything else in it is kept."""

import errno
import fcntl
import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file

from sharpen.errors import DiskError, RecipeError, RewardError, SharpenError
from sharpen.launch.run import resume, start
from sharpen.runs.folder import RunFolder, read_metrics
from sharpen.runs.lock import run_lock
from tiny_runs import Raising, tiny_recipe, tiny_start_model

FAILING = "def digits(completion, **row):\n    raise ValueError('no')\n"
WORKING = "def digits(completion, **row):\n    return sum(c.isdigit() for c in completion) / 8\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("taking_over") / "model")


def reward(folder: Path, source: str, name: str = "reward.py") -> str:
    (folder / name).write_text(source)
    return f"{folder / name}:digits"


def no_step(run: Path, model: Path, folder: Path, **changes: Any) -> None:
    """A run that fails in its first step, after its first evaluation."""
    recipe = tiny_recipe(run, model, "grpo", reward=reward(folder, FAILING), **changes)
    with pytest.raises(RewardError, match="the reward failed for"):
        start(recipe)
    assert (run / "recipe.yaml").exists()


# Held-out answers have a reward of their own failures; without evaluation the first step is what fails.
UNMEASURED: dict[str, Any] = {"evaluation": {"every": 0}, "checkpoint": {"best": None}}


def test_a_corrected_recipe_takes_the_place_of_a_run_that_did_no_step(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    no_step(run, model, tmp_path, **UNMEASURED)
    said: list[str] = []
    corrected = tiny_recipe(run, model, "grpo", reward=reward(tmp_path, WORKING, "right.py"), seed=8)
    assert start(corrected, say=said.append).finished
    assert f"{run} held a run that did no step: this one takes its place" in said
    assert "seed: 8" in (run / "recipe.yaml").read_text()
    assert [row["step"] for row in read_metrics(run)] == [0, 1, 2, 3, 4, 5, 6]


def test_metrics_of_step_0_are_replaced_and_the_id_in_logging_services_is_new(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    folder = RunFolder(run)
    folder.initialise(tiny_recipe(run, model, "sft", seed=1).to_yaml())
    before = folder.logging_id()
    folder.append_metrics({"step": 0, "held_out/reward": 99.0})
    with folder.metrics.open("a") as file:
        file.write('{"step": 1, "lo')  # killed while it wrote its first step
    (run / "tensorboard").mkdir()
    (run / "tensorboard" / "events.out.tfevents.1").write_bytes(b"x")
    (run / "recipe.yaml.partial").write_text("")
    assert start(tiny_recipe(run, model, "sft")).finished
    rows = read_metrics(run)
    assert [row["step"] for row in rows] == [0, 1, 2, 3, 4, 5, 6]
    assert rows[0]["held_out/reward"] < 1
    assert (run / "tensorboard" / "events.out.tfevents.1").exists()
    assert folder.logging_id() != before


def test_the_answers_of_the_first_evaluation_are_no_step(model: Path, tmp_path: Path) -> None:
    """A run without an evaluation then leaves none of them."""
    run = tmp_path / "run"
    working = reward(tmp_path, WORKING)

    def fall() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        start(tiny_recipe(run, model, "grpo", reward=working), loggers=[Raising(lambda step: step == 0, fall)])
    assert [file.name for file in (run / "held_out").iterdir()] == ["step_000000.parquet"]
    (run / "held_out" / "step_000000.parquet.partial").write_text("half")
    begun = (run / "starts.jsonl").read_bytes()
    assert start(tiny_recipe(run, model, "grpo", reward=working, **UNMEASURED)).finished
    assert not list((run / "held_out").iterdir())
    assert len(begun.splitlines()) == len((run / "starts.jsonl").read_bytes().splitlines()) == 1


def test_a_run_that_did_no_step_can_be_resumed(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    no_step(run, model, tmp_path, **UNMEASURED)
    reward(tmp_path, WORKING)
    assert resume(run).finished


def test_a_recipe_that_is_refused_again_leaves_the_folder_as_it_was(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    no_step(run, model, tmp_path, **UNMEASURED)
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    with pytest.raises(SharpenError, match="nowhere"):
        start(tiny_recipe(run, tmp_path / "nowhere", "sft"))
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before


LEFT = {
    "metrics.jsonl": ('{"step": 0}\n{"step": 1}\n', "1 steps of metrics"),
    "metrics.jsonl unreadable": ("{]\n", "metrics.jsonl cannot be read"),
    "kept.jsonl": ("{}\n", "kept.jsonl, the completions that it sampled"),
    "samples/step_000001.parquet": ("", "samples/step_000001.parquet"),
    "samples/step_000000.parquet": ("", "samples/step_000000.parquet"),
    "held_out/step_000002.parquet": ("", "held_out/step_000002.parquet"),
    "checkpoints/step_000002/manifest.json": ("", "checkpoints/step_000002"),
    "checkpoints/.partial_000002/model.safetensors": ("", "checkpoints/.partial_000002"),
    "notes.txt": ("mine", "notes.txt, which is not of a run"),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_worth_keeping_is_kept_and_named(name: str, model: Path, tmp_path: Path) -> None:
    run, (text, said) = tmp_path / "run", LEFT[name]
    RunFolder(run).initialise(tiny_recipe(run, model, "sft", seed=1).to_yaml())
    file = run / name.partition(" ")[0]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(RecipeError) as error:
        start(tiny_recipe(run, model, "sft"))
    assert f"{run} already holds a run ({said}); continue it (`sharpen run --resume {run}`)" in str(error.value)
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "lock"}
    assert after == before


def test_what_a_run_left_without_its_recipe_is_not_mixed_with_another(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "notes.txt").write_text("mine")
    assert start(tiny_recipe(run, model, "sft", training={"steps": 1})).finished
    (run / "recipe.yaml").unlink()
    with pytest.raises(RecipeError, match=r"already holds a run \(1 steps of metrics\); remove it, or"):
        start(tiny_recipe(run, model, "sft"))


def test_it_is_not_taken_from_a_process_that_has_it(model: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    RunFolder(run).initialise(tiny_recipe(run, model, "sft").to_yaml())
    with run_lock(run, print), pytest.raises(SharpenError, match=f"in use by process {os.getpid()}"):
        start(tiny_recipe(run, model, "sft"))


def test_it_is_not_taken_where_nobody_can_tell_whether_a_process_has_it(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    run = tmp_path / "run"
    RunFolder(run).initialise(tiny_recipe(run, model, "sft").to_yaml())
    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.raises(RecipeError, match=r"already holds a run \(it has done no step, but without locks"):
        start(tiny_recipe(run, model, "sft"))


def test_a_folder_that_cannot_be_one_is_named(model: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for run in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(RecipeError) as error:
            start(tiny_recipe(run, model, "sft"))
        assert str(error.value) == f"run: {run} cannot be made: {tmp_path / 'file'} is a file"
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "samples").write_text("")
    with pytest.raises(DiskError, match=r"samples: this folder cannot be written: File exists"):
        start(tiny_recipe(tmp_path / "run", model, "sft"))


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_a_folder_that_cannot_be_written_is_named(
    number: int, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Any, *arguments: Any, **options: Any) -> int:
        if str(path).endswith("lock"):
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, *arguments, **options)

    opened, run = os.open, tmp_path / "deep" / "run"
    monkeypatch.setattr(os, "open", refuse)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=2**40, free=3 * 2**20))
    with pytest.raises(DiskError) as error:
        start(tiny_recipe(run, model, "sft"))
    free = "; its disk has 3.0 MiB free" if number == errno.ENOSPC else ""
    assert str(error.value) == f"run: {run / 'lock'} cannot be written: {os.strerror(number)}{free}"
    assert not (tmp_path / "deep").exists()


def test_a_disk_without_room_for_a_checkpoint_is_named_before_anything_is_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(tmp_path / "run", model, "sft")
    done = start(recipe.model_copy(update={"run": tmp_path / "measured"}))
    files = [*done.model.glob("*.safetensors"), *(done.model / "trainer").glob("*.safetensors")]
    tensors = [(name, tensor) for file in files for name, tensor in load_file(file).items()]
    # All but the optimizer's counters of steps.
    size = sum(tensor.numel() * tensor.element_size() for name, tensor in tensors if not name.endswith(".step"))
    free = size - 1
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=10 * size, free=free))
    with pytest.raises(DiskError) as error:
        start(recipe)
    mib = f"{size / 2**20:.1f} MiB"
    assert f"a checkpoint takes {mib}, and its disk has {free / 2**20:.1f} MiB free" in str(error.value)
    assert not (tmp_path / "run").exists()
    free = size
    assert start(recipe).finished
