"""A dry run says what the run would do, and does nothing: its first batch is the run's, its errors are the run's."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest

from sharpen.errors import DiskError, RunInUseError, SharpenError
from sharpen.launch.dry_run import DryRun, Lengths, dry_resume, dry_run
from sharpen.launch.run import start
from sharpen.methods import METHODS
from sharpen.recipe.schema import Recipe
from sharpen.runs.folder import RunFolder
from sharpen.runs.lock import run_lock
from sharpen.training.learner import Learner
from sharpen.types import Group
from tiny_runs import reward_file, tiny_recipe, tiny_start_model

ONE_STEP = {"training": {"steps": 1}, "checkpoint": {"best": None}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("dry_run") / "model")


def silently(text: str) -> None:
    return


def described(recipe: Recipe) -> DryRun:
    return dry_run(recipe, say=silently)


def files_of(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def sampled(run: Path, step: int) -> list[tuple[str, str]]:
    """Ids and texts of the prompts of a step's samples, in the order in which their completions were drawn."""
    rows = pq.read_table(run / "samples" / f"step_{step:06d}.parquet").to_pylist()
    return [(row["prompt_id"], row["prompt"]) for row in sorted(rows, key=lambda row: row["draw_id"])]


def repeated(groups: Sequence[Group], times: int) -> list[tuple[str, str]]:
    return [(group.prompt.id, group.prompt.text) for group in groups for _ in range(times)]


@pytest.mark.parametrize("name", METHODS)
def test_the_first_batch_is_that_of_the_first_step(
    name: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reward = reward_file(tmp_path / "rewards.py")
    recipe = tiny_recipe(tmp_path / "run", model, name, reward=reward, **ONE_STEP)
    found = described(recipe)
    assert not (tmp_path / "run").exists()
    trained: list[Sequence[Group]] = []
    learn = Learner.learn

    def recorded(self: Learner, groups: Sequence[Group], *arguments: Any, **options: Any) -> Any:
        trained.append(groups)
        return learn(self, groups, *arguments, **options)

    monkeypatch.setattr(Learner, "learn", recorded)
    start(recipe)
    first = found.first
    if recipe.method.source().reads != "prompts":
        assert list(first.groups) == list(trained[0])
        assert all(group.trajectories for group in first.groups)
        return
    step = 0 if first.before_training else 1
    drawn = sampled(tmp_path / "run", step) if (tmp_path / "run" / "samples").exists() else []
    if not drawn:
        drawn = repeated(trained[0], first.group_size)
    expected = repeated(first.groups, first.group_size)
    # Dynamic sampling may draw more, for further prompts.
    assert drawn[: len(expected)] == expected
    assert len(first.groups) == (10 if first.before_training else 4)


def test_nothing_is_written_and_no_logger_starts(model: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "runs" / "one", model, "grpo", log={"loggers": ["tensorboard"]})
    described(recipe)
    assert list(tmp_path.iterdir()) == []


def test_the_numbers_of_the_work(model: Path, tmp_path: Path) -> None:
    """GRPO, 4 prompts with 4 completions each, 2 passes over 2 minibatches, 6 steps; measured at steps 0, 2, 4, 6."""
    work = described(tiny_recipe(tmp_path / "run", model, "grpo")).work
    assert (work.steps, work.prompts_per_step, work.completions_per_step) == (6, 4, 16)
    assert work.updates == 6 * 2 * 2
    assert (work.evaluations, work.held_out, work.answers_each) == (4, 6, 2)
    # Measured after the last step too, where it is not a multiple.
    work = described(tiny_recipe(tmp_path / "run", model, "grpo", evaluation={"every": 4})).work
    assert work.evaluations == 3


def test_rft_samples_once_and_trains_on_what_is_kept(model: Path, tmp_path: Path) -> None:
    found = described(tiny_recipe(tmp_path / "run", model, "rft", method={"group_size": 3}))
    assert found.first.before_training
    assert (found.work.sampled_first, found.work.completions_per_step) == (10 * 3, 4)


def test_rows_and_lengths_are_those_of_the_data(model: Path, tmp_path: Path) -> None:
    """One character of these is one token; a completion ends with one more."""
    rows = [("1+2=", "3"), ("1+23=", "24"), ("11+22+3=", "36;12")]
    train = tmp_path / "rows.jsonl"
    train.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in rows))
    recipe = tiny_recipe(
        tmp_path / "run",
        model,
        "sft",
        data={"task": None, "train": str(train)},
        evaluation={"every": 0},
        checkpoint={"best": None},
        training={"prompts_per_step": 2},
    )
    (data,) = described(recipe).data
    assert data.rows == 3
    assert data.prompts == Lengths(3, 4, 5, 8)
    assert data.completions == Lengths(3, 2, 3, 6)


def test_what_is_trained_on_is_marked(model: Path, tmp_path: Path) -> None:
    train = tmp_path / "rows.jsonl"
    train.write_text('{"prompt": "1+2=", "completion": "3"}\n')
    recipe = tiny_recipe(
        tmp_path / "run",
        model,
        "sft",
        data={"task": None, "train": str(train)},
        evaluation={"every": 0},
        checkpoint={"best": None},
        training={"prompts_per_step": 1},
    )
    first = described(recipe).first
    (group,) = first.groups
    assert [(s.text, s.trained, s.special) for s in first.prompt(group)] == [("1+2=", False, False)]
    (completion,) = first.completions(group)
    assert [(s.text, s.trained, s.special) for s in completion] == [("3", True, False), ("<eos>", True, True)]


def test_the_settings_are_those_that_differ(model: Path, tmp_path: Path) -> None:
    found = described(tiny_recipe(tmp_path / "run", model, "dapo", training={"steps": 100, "prompts_per_step": 8}))
    assert found.settings["method.name"] == "dapo"
    assert found.settings["method.max_rounds"] == 3
    assert found.settings["optimizer.warmup_steps"] == 2
    # The default of training.steps is 100, that of prompts_per_step 8.
    assert not any(name in found.settings for name in ("training.steps", "training.prompts_per_step", "seed.x"))
    assert found.settings["seed"] == 7
    assert "method.eps_high" not in found.settings
    assert found.method_settings["eps_high"] == 0.28


@pytest.mark.parametrize(
    "changes",
    [
        {"data": {"task": None, "train": "nowhere.jsonl"}, "evaluation": {"every": 0}, "reward": "math"},
        {"rollout": {"max_new_tokens": 64}},
        {"reward": "nonsense"},
        {"model": {"path": "./nowhere"}},
        {"rollout": {"engine": {"name": "nowhere:Engine"}}},
    ],
)
def test_a_bad_recipe_gives_the_error_of_a_real_start(changes: dict[str, Any], model: Path, tmp_path: Path) -> None:
    changes = {"checkpoint": {"best": None}, **changes}
    recipe = tiny_recipe(tmp_path / "run", model, "grpo", **changes)
    said = []
    for begin in (described, start):
        with pytest.raises(SharpenError) as error:
            begin(recipe)
        said.append((type(error.value), str(error.value)))
    assert said[0] == said[1]
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_a_folder_with_a_run_is_refused_and_left_as_it_is(model: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "run", model, "sft", **ONE_STEP)
    start(recipe)
    before = files_of(tmp_path)
    with pytest.raises(SharpenError, match="already holds a run"):
        described(recipe)
    assert files_of(tmp_path) == before


@pytest.mark.parametrize("name", ["grpo", "sft", "rft"])
def test_of_a_run_that_goes_on_it_shows_the_next_batch(
    name: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learned: list[Sequence[Group]] = []
    learn = Learner.learn

    def recorded(self: Learner, groups: Sequence[Group], *arguments: Any, **options: Any) -> Any:
        learned.append(groups)
        return learn(self, groups, *arguments, **options)

    monkeypatch.setattr(Learner, "learn", recorded)
    reward = reward_file(tmp_path / "rewards.py")
    unwarmed = {"optimizer": {"warmup_steps": 0}}
    start(tiny_recipe(tmp_path / "whole", model, name, reward=reward, **unwarmed))
    start(tiny_recipe(tmp_path / "half", model, name, reward=reward, training={"steps": 2}, **unwarmed))
    recipe = tmp_path / "half" / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("steps: 2\n", "steps: 6\n", 1))
    before = files_of(tmp_path)
    found = dry_resume(tmp_path / "half", say=silently)
    assert files_of(tmp_path) == before
    assert found.step == 2
    assert [g.prompt.token_ids for g in found.first.groups] == [g.prompt.token_ids for g in learned[2]]


def test_with_lora_the_base_is_frozen_and_the_adapter_is_saved(model: Path, tmp_path: Path) -> None:
    """Two layers of 4 matrices 16 × 16, two 16 × 24 and one 24 × 16; of rank 2 each has 2 (in + out) weights."""
    found = described(tiny_recipe(tmp_path / "run", model, "grpo", model={"lora": {"rank": 2}}))
    adapter = 2 * (4 * 2 * (16 + 16) + 3 * 2 * (16 + 24))
    always = {part.name: part.bytes for part in found.memory.always}
    assert always["optimizer of the policy"] == 8 * adapter
    assert found.checkpoint_bytes == 12 * adapter
    # The base with the adapter off is the reference, and takes nothing.
    assert "weights of the reference" not in always
    assert found.settings["model.lora.rank"] == 2


def test_reward_models_of_data_sources_are_counted(model: Path, tmp_path: Path) -> None:
    """One scorer for two sources of three is one model: the base's weights and a head of 16 numbers."""
    scorer = tmp_path / "scorer"
    start(tiny_recipe(scorer, model, "reward_model", **ONE_STEP))
    task = "arithmetic?terms=2&digits=1&train_size=4&held_out_size=2"
    own = {"name": "reward_model", "path": str(scorer)}
    data = {
        "task": None,
        "sources": {"a": {"task": task, "reward": own}, "b": {"task": task, "reward": [own, "task"]}},
    }
    found = described(tiny_recipe(tmp_path / "run", model, "grpo", data=data))
    always = {part.name: part.bytes for part in found.memory.always}
    of_scorers = [size for name, size in always.items() if name.startswith("weights of the reward ")]
    alone = described(
        tiny_recipe(tmp_path / "run", model, "grpo", data={"task": None, "sources": {"a": data["sources"]["a"]}})
    )
    (size,) = (part.bytes for part in alone.memory.always if part.name == "weights of the reward reward_model")
    assert of_scorers == [size, size]
    assert size > 0


def test_what_a_source_sets_is_shown_by_its_path(model: Path, tmp_path: Path) -> None:
    task = "arithmetic?terms=2&digits=1&train_size=4&held_out_size=2"
    data = {"task": None, "sources": {"a": {"task": task, "share": 3.0}, "b": {"task": task}}}
    found = described(tiny_recipe(tmp_path / "run", model, "grpo", data=data))
    shown = {name: value for name, value in found.settings.items() if name.startswith("data")}
    assert shown == {"data.sources.a.task": task, "data.sources.a.share": 3.0, "data.sources.b.task": task}


def test_a_finished_run_is_said_to_be_finished_and_nothing_is_made(model: Path, tmp_path: Path) -> None:
    run = start(tiny_recipe(tmp_path / "run", model, "sft", **ONE_STEP)).path
    (run / "samples").rmdir()
    (run / "lock").unlink()
    before = sorted(tmp_path.rglob("*"))
    said: list[str] = []
    assert dry_resume(run, say=said.append) is None
    assert said == [f"{run} is finished: 1 steps are done"]
    assert sorted(tmp_path.rglob("*")) == before


def test_no_folder_is_made_for_a_run_that_would_go_on(model: Path, tmp_path: Path) -> None:
    RunFolder(tmp_path / "run").initialise(tiny_recipe(tmp_path / "run", model, "sft").to_yaml())
    (tmp_path / "run" / "samples").rmdir()
    (tmp_path / "run" / "checkpoints").rmdir()
    assert dry_resume(tmp_path / "run", say=silently) is not None
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["recipe.yaml"]


def test_a_folder_that_cannot_be_made_and_a_full_disk_are_errors_of_both(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def said(recipe: Recipe) -> set[str]:
        errors = set()
        for begin in (described, start):
            with pytest.raises(DiskError) as error:
                begin(recipe)
            errors.add(str(error.value))
        return errors

    nowhere = Path("/proc/sharpen_run")
    assert said(tiny_recipe(nowhere, model, "sft")) == {f"run: {nowhere} cannot be written: No such file or directory"}
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(total=100, free=1))
    (full,) = said(tiny_recipe(tmp_path / "run", model, "sft"))
    assert "a checkpoint takes " in full
    assert not (tmp_path / "run").exists()


def test_a_run_in_use_is_an_error_of_both(model: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "run", model, "sft")
    with run_lock(tmp_path / "run", silently), pytest.raises(RunInUseError):
        described(recipe)
