"""Each evaluation during training writes the answers to the held-out prompts beside the samples."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from pandas import isna

import sharpen
from sharpen.errors import RecipeError
from sharpen.launch.run import resume, start
from sharpen.runs.folder import RunFolder
from tiny_runs import Raising, assert_left_the_same, left_behind, reward_file, tiny_recipe, tiny_start_model
from tiny_turns import TURNS


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("held_out") / "model")


@pytest.fixture(scope="module")
def run(model: Path, tmp_path_factory: pytest.TempPathFactory) -> sharpen.Run:
    """Measured at steps 0, 2, 4 and at its last, 5: two answers to each of four held-out prompts."""
    folder = tmp_path_factory.mktemp("run")
    settings: dict[str, Any] = {"training": {"steps": 5}, "evaluation": {"prompts": 4}}
    return start(tiny_recipe(folder / "run", model, "grpo", reward=reward_file(folder / "reward.py"), **settings))


def files(run: Path) -> list[str]:
    return sorted(file.name for file in (run / "held_out").glob("*"))


def test_every_evaluation_has_its_answers(run: sharpen.Run) -> None:
    assert files(run.path) == [f"step_00000{step}.parquet" for step in (0, 2, 4, 5)]
    rows = run.held_out_samples()
    assert rows["step"].tolist() == [step for step in (0, 2, 4, 5) for _ in range(8)]
    columns = [name for name in run.samples(1).columns if name != "step"]
    assert list(run.held_out_samples(0).columns) == ["step", *columns, "right"]
    for step in (0, 2, 4, 5):
        # Prompt after prompt, and the same ones each time.
        assert run.held_out_samples(step)["prompt_id"].tolist() == rows["prompt_id"][:8].tolist()
    assert rows["prompt_id"][:8].nunique() == 4


def test_the_measures_are_those_of_the_answers(run: sharpen.Run) -> None:
    """Worked out from the rows: a completion is right from a reward of 0.5 on, and pass@2 of two is one right."""
    for step in (0, 2, 4, 5):
        rows, metrics = run.held_out_samples(step), run.metrics.loc[step]
        assert rows["right"].dtype == bool
        assert rows["right"].tolist() == [reward >= 0.5 for reward in rows["reward"]]
        digits = [sum(c.isdigit() for c in text) / 8 for text in rows["completion"]]
        assert rows["reward"].tolist() == digits
        by_prompt = rows.groupby("prompt_id")
        expected = {
            "pass@1": by_prompt["right"].mean().mean(),
            "pass@2": by_prompt["right"].any().mean(),
            "reward": by_prompt["reward"].mean().mean(),
            "length": by_prompt["tokens"].mean().mean(),
            "truncated": (rows["finish"] == "length").mean(),
        }
        for name, value in expected.items():
            assert metrics[f"held_out/{name}"] == pytest.approx(value, abs=1e-12), (step, name)


OWN = """
def last_digit(completion, **row):
    return float(completion[-1:].isdigit())

# A user's own code may give numbers too.
last_digit.answer = lambda text: (int(text[-1]) if text[-1] < "5" else text[-1]) if text[-1:].isdigit() else None
"""


def last_digits(completions: Iterable[str]) -> list[str | None]:
    return [text[-1] if text[-1:].isdigit() else None for text in completions]


def test_a_reward_that_extracts_answers_says_which(model: Path, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(OWN)
    reward = f"{tmp_path / 'own.py'}:last_digit"
    rows = start(tiny_recipe(tmp_path / "run", model, "grpo", reward=reward)).held_out_samples()
    assert list(rows.columns[-2:]) == ["right", "answer"]
    expected = last_digits(rows["completion"])
    assert [None if isna(answer) else answer for answer in rows["answer"]] == expected
    # Some with none, some that were numbers, and some that were texts.
    assert None in expected
    assert {answer < "5" for answer in expected if answer is not None} == {True, False}


def test_of_several_sources_each_row_says_its_own_and_the_answer_that_its_reward_extracts(
    model: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "rows.jsonl").write_text("".join(f'{{"prompt": "{i}+1="}}\n' for i in range(4)))
    rows, reward = str(tmp_path / "rows.jsonl"), reward_file(tmp_path / "reward.py")
    sources = {
        "voted": {"train": rows, "held_out": rows, "reward": f"{tmp_path / 'own.py'}:last_digit"},
        "counted": {"train": rows, "held_out": rows, "reward": reward},
    }
    recipe = tiny_recipe(tmp_path / "run", model, "grpo", data={"task": None, "sources": sources})
    found = start(recipe).held_out_samples(6)
    assert found["source"].tolist() == ["voted"] * 8 + ["counted"] * 8
    assert found["answer"][8:].isna().all()
    assert [None if isna(answer) else answer for answer in found["answer"][:8]] == last_digits(found["completion"][:8])


def test_a_step_that_was_not_measured_is_an_error_that_says_which_were(run: sharpen.Run) -> None:
    with pytest.raises(
        RecipeError, match=r"no held-out answers of step 3: there are those of steps 0, 2, 4, 5 \(evaluation"
    ):
        run.held_out_samples(3)


def test_none_are_written_where_no_samples_are(model: Path, tmp_path: Path) -> None:
    reward = reward_file(tmp_path / "reward.py")
    run = start(tiny_recipe(tmp_path / "off", model, "grpo", reward=reward, log={"samples_every": 0}))
    assert "held_out/pass@1" in run.metrics.columns
    assert not (run.path / "held_out").exists()
    assert run.held_out_samples().empty


def test_a_method_that_samples_nothing_answers_held_out_prompts_too(model: Path, tmp_path: Path) -> None:
    reward = reward_file(tmp_path / "reward.py")
    answered = start(tiny_recipe(tmp_path / "sft", model, "sft", reward=reward))
    assert files(answered.path) == [f"step_00000{step}.parquet" for step in (0, 2, 4, 6)]
    off = start(tiny_recipe(tmp_path / "off", model, "sft", reward=reward, log={"samples_every": 0}))
    assert files(off.path) == []


def test_completions_of_the_data_that_are_measured_are_not_written(model: Path, tmp_path: Path) -> None:
    """A reward model's held-out pairs are rows of the data."""
    run = start(tiny_recipe(tmp_path / "run", model, "reward_model", checkpoint={"best": "loss"}))
    assert "held_out/loss" in run.metrics.columns
    assert files(run.path) == []


def test_conversations_are_written_whole(model: Path, tmp_path: Path) -> None:
    reward = reward_file(tmp_path / "reward.py")
    run = start(tiny_recipe(tmp_path / "run", model, "grpo", reward=reward, rollout=TURNS, training={"steps": 1}))
    rows = run.held_out_samples(1)
    assert {"end", "turns", "messages"} < set(rows.columns)
    assert rows["turns"].max() > 1


def test_a_run_that_is_killed_between_its_answers_and_their_metrics_ends_with_the_same_files(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on from step 2, where nothing of step 4 may be left."""
    reward, path = reward_file(tmp_path / "reward.py"), tmp_path / "killed"
    start(tiny_recipe(tmp_path / "whole", model, "grpo", reward=reward))
    append = RunFolder.append_metrics

    def killed(folder: RunFolder, row: Mapping[str, float]) -> None:
        if row["step"] == 4:
            raise KeyboardInterrupt
        append(folder, row)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "append_metrics", killed)
        with pytest.raises(KeyboardInterrupt):
            start(tiny_recipe(path, model, "grpo", reward=reward))
    assert files(path) == [f"step_00000{step}.parquet" for step in (0, 2, 4)]
    (path / "held_out" / "step_000004.parquet.partial").write_text("half")
    seen: list[list[str]] = []
    assert resume(path, loggers=[Raising(lambda step: step == 3, lambda: seen.append(files(path)))]).finished
    assert seen == [["step_000000.parquet", "step_000002.parquet"]]
    assert files(path) == files(tmp_path / "whole")
    assert_left_the_same(path, left_behind(tmp_path / "whole"))
