"""sharpen from Python, in about ten lines."""

import json
import math
from functools import wraps
from pathlib import Path

import pytest
from datasets import Dataset
from typer.testing import CliRunner

import sharpen
from api_runs import ROWS, SMALL, digit_model, first_digit, untimed
from sharpen.cli.app import app
from sharpen.errors import ChangedError, DataError, RecipeError, RewardError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digit_model(tmp_path_factory.mktemp("api") / "model")


def test_rows_and_a_function_train_a_model(model: Path, tmp_path: Path) -> None:
    run = sharpen.train(
        model,
        sharpen.GRPO(group_size=4),
        ROWS,
        reward=first_digit,
        held_out=ROWS[:3],
        run=tmp_path / "run",
        quiet=True,
        evaluation={"every": 2},
        **SMALL,
    )
    assert run.finished
    assert (run.model / "model.safetensors").is_file()
    assert [row["step"] for row in run.metric_rows()] == [0, 1, 2]
    assert 0 <= run.metric_rows()[-1]["reward/mean"] <= 1
    assert "held_out/pass@1" in run.metric_rows()[-1]


def test_a_list_a_file_and_a_dataset_are_the_same_data(model: Path, tmp_path: Path) -> None:
    jsonl = tmp_path / "rows.jsonl"
    jsonl.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    settings = {"reward": "exact_answer", "quiet": True, **SMALL}
    runs = [
        sharpen.train(model, "grpo", data, run=tmp_path / name, **settings)
        for name, data in {"list": ROWS, "file": jsonl, "dataset": Dataset.from_list(ROWS)}.items()
    ]
    assert untimed(runs[0]) == untimed(runs[1]) == untimed(runs[2])


def test_demonstrations_train_with_sft(model: Path, tmp_path: Path) -> None:
    rows = [{"prompt": row["prompt"], "completion": row["answer"]} for row in ROWS]
    run = sharpen.train(model, "sft", rows, run=tmp_path / "run", quiet=True, **SMALL)
    assert all(row["loss"] > 0 for row in run.metric_rows())


def test_a_task_brings_its_rows_and_its_reward(model: Path, tmp_path: Path) -> None:
    task = "arithmetic?terms=2&digits=1&train_size=8&held_out_size=2"
    run = sharpen.train(model, {"name": "grpo", "group_size": 2}, task, run=tmp_path / "run", quiet=True, **SMALL)
    assert "reward/arithmetic" in run.metric_rows()[-1]


def test_a_run_goes_on_with_the_same_objects(model: Path, tmp_path: Path) -> None:
    calls = 0

    @wraps(first_digit)
    def failing(completion: str, answer: str, **row: object) -> float:
        nonlocal calls
        calls += 1
        if calls == 20:
            return math.nan
        return first_digit(completion, answer, **row)

    arguments = {"quiet": True, **SMALL}
    whole = sharpen.train(model, "grpo", ROWS, reward=first_digit, run=tmp_path / "whole", **arguments)
    with pytest.raises(RewardError, match="returned nan"):
        sharpen.train(model, "grpo", ROWS, reward=failing, run=tmp_path / "cut", **arguments)
    assert len((tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()) == 1
    # No import gives it either: `first_digit` itself has a name, and would be another reward.
    mended = wraps(first_digit)(lambda *given, **row: first_digit(*given, **row))
    resumed = sharpen.train(model, "grpo", ROWS, reward=mended, run=tmp_path / "cut", resume=True, quiet=True)
    assert untimed(resumed) == untimed(whole)
    weights = [(run.model / "model.safetensors").read_bytes() for run in (whole, resumed)]
    assert weights[0] == weights[1]

    other = [{**row, "prompt": "9+9="} for row in ROWS]
    with pytest.raises(RecipeError, match="already holds a run"):
        sharpen.train(model, "grpo", ROWS, reward=first_digit, run=tmp_path / "cut", **arguments)
    cut = tmp_path / "cut"
    for checkpoint in sorted((cut / "checkpoints").glob("step_*"))[1:]:
        (checkpoint / "manifest.json").unlink()
    with pytest.raises(
        ChangedError, match="- the training data: rows given as a list has other values in column `prompt`"
    ):
        sharpen.train(model, "grpo", other, reward=mended, run=cut, resume=True, quiet=True)


def test_a_run_of_python_objects_cannot_be_resumed_from_the_command_line(model: Path, tmp_path: Path) -> None:
    settings = {**SMALL, "training": {"steps": 1}}
    # A lambda, which no import gives again.
    reward = lambda completion, answer: first_digit(completion, answer)  # noqa: E731
    run = sharpen.train(model, "grpo", ROWS, reward=reward, run=tmp_path / "run", quiet=True, **settings)
    for checkpoint in (run.path / "checkpoints").glob("step_*"):
        checkpoint.rename(tmp_path / checkpoint.name)
    result = CliRunner().invoke(app, ["run", "--resume", str(run.path)])
    assert result.exit_code == 2
    assert "was given `data.train`, `reward` in Python; resume it there, with the same objects" in result.stderr


def test_what_cannot_be_used_is_named_before_anything_is_written(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "run"
    with pytest.raises(RecipeError, match=r"unknown setting `training\.stepz`\. Did you mean `training\.steps`"):
        sharpen.train(model, "grpo", ROWS, reward=first_digit, run=path, training={"stepz": 1}, quiet=True)
    with pytest.raises(RecipeError, match="Did you mean `grpo`"):
        sharpen.train(model, "grop", ROWS, reward=first_digit, run=path, quiet=True)
    with pytest.raises(sharpen.SharpenError, match="needs the column 'answer'"):
        sharpen.train(model, "grpo", [{"prompt": "1+1="}], reward=first_digit, run=path, quiet=True, **SMALL)
    with pytest.raises(DataError, match="no rows"):
        sharpen.train(model, "grpo", [], reward=first_digit, run=path, quiet=True, **SMALL)
    assert not path.exists()
