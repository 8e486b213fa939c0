"""`sharpen.evaluate` gives the numbers of ``sharpen eval``, and takes rows and rewards as objects."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import sharpen
from api_runs import ROWS, SMALL, digit_model, first_digit
from one_thread import one_thread
from sharpen.cli.app import app
from sharpen.errors import RecipeError

__all__ = ["one_thread"]

TASK = "arithmetic?terms=2&digits=1&train_size=8&held_out_size=6"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digit_model(tmp_path_factory.mktemp("api") / "model")


@pytest.fixture(scope="module")
def run(model: Path, tmp_path_factory: pytest.TempPathFactory) -> sharpen.Run:
    return sharpen.train(
        model,
        "grpo",
        ROWS,
        reward=first_digit,
        held_out=ROWS[:6],
        run=tmp_path_factory.mktemp("run") / "run",
        seed=4,
        evaluation={"every": 1, "n": 4, "k": (1, 4), "temperature": 0.9},
        quiet=True,
        **SMALL,
    )


def printed(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["eval", *map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)["measures"]
    return found


def test_the_numbers_are_those_of_the_command_line(model: Path, run: sharpen.Run, tmp_path: Path) -> None:
    """Bit for bit, from objects, files and a task."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    of_rows = printed(model, "--data", rows, "--reward", "exact_answer", "--n", 4, "--k", "1,2", "--max-new-tokens", 4)
    options: dict[str, Any] = {"n": 4, "k": [1, 2], "max_new_tokens": 4}
    for data, reward in ((rows, "exact_answer"), (str(rows), sharpen.ExactAnswer()), (ROWS, [sharpen.ExactAnswer()])):
        assert sharpen.evaluate(model, data, reward, **options).to_json() == of_rows
    assert of_rows["length"]["mean"] > 1
    greedy = {"n": 2, "k": 1, "max_new_tokens": 3, "temperature": 0.7, "seed": 9, "prompts": 5}
    flags = [part for name, value in greedy.items() for part in (f"--{name.replace('_', '-')}", value)]
    assert sharpen.evaluate(model, TASK, **greedy).to_json() == printed(model, "--task", TASK, *flags)
    # The function is found again by its name.
    given = ["--data", rows, "--temperature", 0.5]
    assert run.evaluate(rows, temperature=0.5).to_json() == printed(run.path, *given)


def test_a_run_is_measured_as_it_measured_itself(run: sharpen.Run) -> None:
    measured = run.metrics.loc[2]
    found = run.evaluate(ROWS[:6])
    assert found.measures.keys() >= {"pass@1", "pass@4"}
    for name, estimate in found.measures.items():
        assert estimate.mean == measured[f"held_out/{name}"]
    assert (
        found.to_json() == sharpen.evaluate(run.model, ROWS[:6]).to_json() == sharpen.evaluate(run, ROWS[:6]).to_json()
    )
    with pytest.raises(RecipeError, match="its run was given rows or a reward in Python; give `data`"):
        sharpen.Run.open(run.path).evaluate()
    # The call that trained it knows the rows.
    assert run.evaluate().to_json() == found.to_json()


def test_a_local_reward_is_known_to_the_run_that_was_given_it(model: Path, tmp_path: Path) -> None:
    reward = {"name": lambda completion, answer: first_digit(completion, answer), "weight": 2.0}
    run = sharpen.train(
        model, "grpo", ROWS, reward=reward, held_out=ROWS[:4], run=tmp_path / "run", quiet=True, **SMALL
    )
    found = run.evaluate(n=2, k=1)
    assert found.to_json() == sharpen.evaluate(run, ROWS[:4], reward, n=2, k=1).to_json()
    assert set(found.answers["reward"]) == {0.0, 2.0}
    with pytest.raises(RecipeError, match="given rows or a reward in Python; give `data` and `reward`"):
        sharpen.evaluate(run.path)


def test_the_measures_and_the_answers_are_data_frames(run: sharpen.Run) -> None:
    found = run.evaluate(ROWS[:6], n=3, k=1)
    estimate = found.measures["pass@1"]
    assert found.table.loc["pass@1"].tolist() == [estimate.mean, estimate.low, estimate.high]
    answers = found.answers
    assert len(answers) == 18
    assert answers["right"].mean() == pytest.approx(estimate.mean)
    assert answers["reward"].tolist() == [
        first_digit(completion, ROWS[place // 3]["answer"]) for place, completion in enumerate(answers["completion"])
    ]
    assert f"pass@1 {estimate.mean:.4g} [" in repr(found)
    assert "<table" in found._repr_html_()


def test_what_cannot_be_used_is_named_as_an_argument(model: Path, run: sharpen.Run) -> None:
    with pytest.raises(RecipeError, match=r"say what to measure on: a task as `data` .* or `data`"):
        sharpen.evaluate(model)
    with pytest.raises(RecipeError, match="say which answers to these rows are right: give `reward`"):
        sharpen.evaluate(model, ROWS)
    with pytest.raises(RecipeError, match="no effect of `top_k`: at temperature 0"):
        run.evaluate(ROWS, temperature=0, top_k=3)
    with pytest.raises(RecipeError, match="no effect of `n`: at temperature 0 all answers"):
        run.evaluate(ROWS, temperature=0, n=4)
    with pytest.raises(RecipeError, match="pass@9 needs n >= 9"):
        sharpen.evaluate(model, ROWS, first_digit, k=9)
