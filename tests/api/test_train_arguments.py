"""The arguments of `sharpen.train` and `sharpen.resume`: sections, callbacks, loggers, and what a resumed run keeps."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import sharpen
from api_runs import ROWS, digit_model, first_digit, untimed
from sharpen.errors import DataError, RecipeError
from sharpen.recipe.schema import Recipe
from sharpen.settings import Settings

SMALL: dict[str, Any] = {
    "rollout": {"max_new_tokens": 4},
    "training": {"steps": 4, "prompts_per_step": 2},
    "checkpoint": {"every": 0},
    "quiet": True,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digit_model(tmp_path_factory.mktemp("api") / "model")


@pytest.fixture(scope="module")
def whole(model: Path, tmp_path_factory: pytest.TempPathFactory) -> sharpen.Run:
    """The run that is never stopped."""
    return sharpen.train(
        model, "grpo", ROWS, reward=first_digit, run=tmp_path_factory.mktemp("runs") / "whole", **SMALL
    )


def weights(run: sharpen.Run) -> bytes:
    return (run.model / "model.safetensors").read_bytes()


def test_every_section_is_an_argument_with_its_class() -> None:
    hints, arguments = typing.get_type_hints(sharpen.train), inspect.signature(sharpen.train).parameters
    assert set(Recipe.model_fields) - {"reward", "method", "run"} <= set(hints)
    for name, field in Recipe.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Settings) and name != "method":
            assert field.annotation in typing.get_args(hints[name]), name
    assert not any(argument.kind is inspect.Parameter.VAR_KEYWORD for argument in arguments.values())
    assert list(arguments)[:3] == ["model", "method", "train_dataset"]


def test_a_section_is_an_object_of_its_class_or_a_mapping(model: Path, tmp_path: Path) -> None:
    recipes = []
    for name, settings in {
        "mapping": {"rollout": {"max_new_tokens": 4}, "training": {"steps": 1}, "data": {"overlong": "drop"}},
        "class": {"rollout": sharpen.RolloutSettings(max_new_tokens=4), "training": sharpen.TrainingSettings(steps=1)},
    }.items():
        data: Any = {"train": ROWS, "overlong": "drop"}
        if name == "class":
            data = sharpen.DataSettings(**data)
        run = sharpen.train(
            sharpen.ModelSettings(path=str(model)) if name == "class" else {"path": model},
            sharpen.GRPO,
            reward=first_digit,
            run=tmp_path / name,
            quiet=True,
            **{**settings, "data": data},
        )
        recipes.append(run.recipe.model_dump(mode="json", exclude={"run"}))
    assert recipes[0] == recipes[1]
    assert recipes[0]["rollout"]["max_new_tokens"] == 4
    with pytest.raises(RecipeError, match="`training` is a mapping of settings, or an object of their class, not int"):
        sharpen.train(model, "grpo", ROWS, reward=len, run=tmp_path / "x", training=3)  # type: ignore[arg-type]


def test_a_function_of_the_step_sees_each_step_and_its_metrics(model: Path, whole: sharpen.Run, tmp_path: Path) -> None:
    seen: list[tuple[int, Mapping[str, float]]] = []

    class Logger:
        closed = 0

        def log(self, step: int, metrics: Mapping[str, float]) -> None:
            logged.append((step, dict(metrics)))

        def close(self) -> None:
            self.closed += 1

    logged: list[tuple[int, Mapping[str, float]]] = []
    logger = Logger()
    run = sharpen.train(
        model,
        "grpo",
        ROWS,
        reward=first_digit,
        run=tmp_path / "run",
        loggers=[logger],
        on_step=lambda step, metrics: seen.append((step, metrics)),
        **SMALL,
    )
    assert seen == logged == [(row["step"], row) for row in run.metric_rows()]
    assert [step for step, _ in seen] == [1, 2, 3, 4]
    assert logger.closed == 1
    assert (untimed(run), weights(run)) == (untimed(whole), weights(whole))


def test_returning_false_stops_the_run_after_that_step(model: Path, whole: sharpen.Run, tmp_path: Path) -> None:
    run = sharpen.train(
        model, "grpo", ROWS, reward=first_digit, run=tmp_path / "run", on_step=lambda step, metrics: step < 2, **SMALL
    )
    assert not run.finished
    assert run.model.name == "step_000002"
    assert [row["step"] for row in run.metric_rows()] == [1, 2]
    seen: list[int] = []
    run = sharpen.resume(
        run, train_dataset=ROWS, reward=first_digit, on_step=lambda step, metrics: seen.append(step), quiet=True
    )
    assert run.finished
    assert seen == [3, 4]
    assert (untimed(run), weights(run)) == (untimed(whole), weights(whole))


def test_what_the_function_raises_is_passed_on_and_no_step_is_lost(
    model: Path, whole: sharpen.Run, tmp_path: Path
) -> None:
    raised = ZeroDivisionError("mine")

    def fail(step: int, metrics: Mapping[str, float]) -> None:
        if step == 3:
            raise raised

    with pytest.raises(ZeroDivisionError) as caught:
        sharpen.train(model, "grpo", ROWS, reward=first_digit, run=tmp_path / "run", on_step=fail, **SMALL)
    assert caught.value is raised
    run = sharpen.Run.open(tmp_path / "run")
    assert run.model.name == "step_000003"
    run = sharpen.resume(run.path, train_dataset=ROWS, reward=first_digit, quiet=True)
    assert (untimed(run), weights(run)) == (untimed(whole), weights(whole))


def test_arguments_beside_resume_must_be_those_of_the_start(model: Path, whole: sharpen.Run, tmp_path: Path) -> None:
    arguments: dict[str, Any] = {"reward": first_digit, "run": tmp_path / "run", **SMALL}
    run = sharpen.train(model, "grpo", ROWS, on_step=lambda step, metrics: step < 1, **arguments)
    before = (run.path / "metrics.jsonl").read_bytes()
    with pytest.raises(RecipeError) as caught:
        sharpen.train(
            "elsewhere",
            sharpen.GRPO(group_size=16),
            ROWS,
            seed=3,
            resume=True,
            **{**arguments, "training": {"steps": 5, "prompts_per_step": 2}},
        )
    said = str(caught.value).splitlines()
    assert said[0].startswith(f"{run.path}: a resumed run keeps the settings it was started with")
    assert set(said[1:]) == {
        f"`model.path`: started with {str(model)!r}, now 'elsewhere'",
        "`method.group_size`: started with 8, now 16",
        "`seed`: started with 0, now 3",
        "`training.steps`: started with 4, now 5",
    }
    with pytest.raises(RecipeError, match=r"unknown setting `training\.stepz`"):
        sharpen.train(model, "grpo", ROWS, resume=True, **{**arguments, "training": {"stepz": 5}})
    # Instead of rows that were given in Python, whatever is given now is read.
    with pytest.raises(DataError, match=r"other\.jsonl: no such file"):
        sharpen.train(model, "grpo", "other.jsonl", resume=True, **arguments)
    assert (run.path / "metrics.jsonl").read_bytes() == before
    run = sharpen.train(model, "grpo", ROWS, resume=True, **arguments)
    assert (untimed(run), weights(run)) == (untimed(whole), weights(whole))


def test_resuming_needs_what_was_given_in_python_and_nothing_else(model: Path, tmp_path: Path) -> None:
    def local(completion: str, answer: str, **row: object) -> float:
        return first_digit(completion, answer)

    run = sharpen.train(
        model, "grpo", ROWS, reward=local, run=tmp_path / "run", on_step=lambda step, metrics: step < 1, **SMALL
    )
    with pytest.raises(RecipeError, match=r"was given `data\.train`, `reward` in Python"):
        sharpen.resume(run, quiet=True)
    with pytest.raises(RecipeError, match=r"was given `reward` in Python"):
        sharpen.resume(run, train_dataset=ROWS, quiet=True)
    with pytest.raises(RecipeError, match=r"`data\.held_out`: started with None"):
        sharpen.resume(run, train_dataset=ROWS, held_out=ROWS, reward=local, quiet=True)
    assert sharpen.resume(run, train_dataset=ROWS, reward=local, quiet=True).finished


def test_a_run_of_names_is_resumed_by_its_folder_alone(model: Path, tmp_path: Path) -> None:
    task = "arithmetic?terms=2&digits=1&train_size=8&held_out_size=2"
    run = sharpen.train(model, "grpo", task, run=tmp_path / "run", on_step=lambda step, metrics: False, **SMALL)
    assert not run.finished
    assert sharpen.resume(run.path, quiet=True).finished
