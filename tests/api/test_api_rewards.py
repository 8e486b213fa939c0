"""Rewards from Python: functions, classes and objects with weights, gates and settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

import api_runs
import sharpen
from api_runs import ROWS, SMALL, digit_model, first_digit, never, redo, untimed
from sharpen.errors import RecipeError, RewardError
from sharpen.recipe.loading import load_recipe
from sharpen.rewards import CallSettings, Gate, Verifier


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return digit_model(tmp_path_factory.mktemp("api") / "model")


def length(completion: str) -> float:
    return float(len(completion))


class Starts:
    """An object that is called, with a setting and a name of its own."""

    name = "starts"

    def __init__(self, digit: str = "1") -> None:
        self.digit = digit

    def __call__(self, completion: str) -> float:
        return float(completion.startswith(self.digit))


class Equals(Verifier):
    """1 for the text."""

    name = "equals"
    text: str = "1"

    def __call__(self, completion: str, **row: Any) -> float:
        return float(completion == self.text)


def test_weights_gates_and_calls_of_functions(model: Path, tmp_path: Path) -> None:
    """reward = ½ · (first digit) + 2 · length + 3 · (starts with 1) − 1 · (is 1), of every sample and on average."""
    reward: list[Any] = [
        {"name": first_digit, "weight": 0.5},
        {"name": length, "weight": 2.0, "call": CallSettings(timeout_s=9.0)},
        {"name": Starts, "digit": "1", "weight": 3},
        {"name": Equals(text="1"), "weight": -1.0},
        {"name": "regex", "pattern": "[0-9]*", "weight": 0.0},
    ]
    settings = {"reward": reward, "quiet": True}
    run = sharpen.train(model, "grpo", ROWS, run=tmp_path / "run", **settings, **SMALL)
    answers = {row["prompt"]: row["answer"] for row in ROWS}
    for row in run.metric_rows()[1:]:
        samples = pq.read_table(run.path / "samples" / f"step_{int(row['step']):06d}.parquet").to_pylist()
        expected = []
        for sample in samples:
            text, answer = sample["completion"], answers[sample["prompt"]]
            terms = 0.5 * (text[:1] == answer[:1]), 2 * len(text), 3 * text.startswith("1"), -(text == "1")
            expected.append(sum(terms))
            assert sample["reward"] == pytest.approx(expected[-1])
        assert len(set(expected)) > 2
        assert row["reward/mean"] == pytest.approx(sum(expected) / len(expected))
        parts = [row[f"reward/{name}"] for name in ("first_digit", "length", "starts", "equals")]
        assert row["reward/mean"] == pytest.approx(0.5 * parts[0] + 2 * parts[1] + 3 * parts[2] - parts[3])
    saved = load_recipe(run.path / "recipe.yaml").model_dump(mode="json")["reward"]
    functions = [f"{api_runs.__file__}:first_digit", f"{__file__}:length", f"{__file__}:Starts", f"{__file__}:Equals"]
    assert [entry["name"] for entry in saved] == [*functions, "regex"]
    assert (saved[3]["text"], saved[2]["digit"]) == ("1", "1")
    assert [entry["weight"] for entry in saved] == [0.5, 2.0, 3, -1.0, 0.0]
    assert (saved[1]["call"]["timeout_s"], saved[2]["digit"]) == (9.0, "1")

    first = untimed(run)
    assert untimed(redo(run, train_dataset=ROWS, **settings)) == first
    assert untimed(redo(run, train_dataset=ROWS, quiet=True)) == first
    with pytest.raises(RecipeError, match=r"given `data\.train` in Python"):
        redo(run, quiet=True)
    reward[0]["weight"] = 5.0
    with pytest.raises(RecipeError, match=r"`reward\[0\]\.weight`: started with 0\.5, now 5\.0"):
        redo(run, train_dataset=ROWS, **settings)


def test_a_function_as_a_gate(model: Path, tmp_path: Path) -> None:
    """Two characters or more, or −1; who passes has ten times the first digit."""
    reward = [{"name": length, "gate": Gate(at_least=2, otherwise=-1)}, {"name": first_digit, "weight": 10}]
    run = sharpen.train(model, "grpo", ROWS, reward=reward, run=tmp_path / "run", quiet=True, **SMALL)
    answers = {row["prompt"]: row["answer"] for row in ROWS}
    for step in (1, 2):
        samples = pq.read_table(run.path / "samples" / f"step_{step:06d}.parquet").to_pylist()
        for sample in samples:
            text = sample["completion"]
            passed = 10.0 * (text[:1] == answers[sample["prompt"]][:1])
            assert sample["reward"] == (passed if len(text) >= 2 else -1.0)
        assert {len(sample["completion"]) >= 2 for sample in samples} == {True, False}
    (saved, _) = load_recipe(run.path / "recipe.yaml").model_dump(mode="json")["reward"]
    assert saved == {"name": f"{__file__}:length", "gate": {"at_least": 2.0, "otherwise": -1.0, "skip": False}}


@pytest.mark.parametrize(
    ("reward", "names"),
    [
        (Starts, ["starts"]),
        (Starts(), ["starts"]),
        (Equals, ["equals"]),
        ({"name": Equals, "text": "2"}, ["equals"]),
        ([length, {"name": "regex", "pattern": ".*"}, Starts], ["length", "regex", "starts"]),
    ],
)
def test_a_reward_may_be_a_class_or_an_object(reward: Any, names: list[str], model: Path, tmp_path: Path) -> None:
    run = sharpen.train(model, "grpo", ROWS, reward=reward, run=tmp_path / "run", quiet=True, **SMALL)
    row = run.metric_rows()[-1]
    assert row["reward/mean"] == pytest.approx(sum(row[f"reward/{name}"] for name in names))


REFUSED: dict[str, tuple[Any, type[Exception], str]] = {
    "a reward that is none": ([first_digit, 3], RecipeError, "in Python also a function, not 3"),
    "an object that is no reward": (object(), RecipeError, "a reward is a name, a mapping"),
    "a name that is no reward": ({"name": object()}, RewardError, "a reward is a function, a name"),
    "a reward without a name": ([{"weight": 1.0}], RewardError, "a reward needs a name"),
    "an unknown setting of a function": ({"name": length, "wieght": 2}, RewardError, "no setting 'wieght'"),
    "an unknown setting of a class": ({"name": Starts, "digits": 2}, RewardError, "'digits'"),
    "a weight that is a text": ({"name": length, "weight": "2"}, RewardError, "`weight`: Input should be"),
    "a weight that is no number": ({"name": length, "weight": float("nan")}, RewardError, "finite number"),
    "an unknown setting of a call": ({"name": length, "call": {"wait": 2}}, RewardError, "call.wait"),
    "an unknown setting of a gate": ([length, {"name": length, "gate": {"a": 2}}], RewardError, "gate.a"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_reward_is_said_before_a_model_is_loaded(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reward, error, message = REFUSED[case]
    monkeypatch.setattr("sharpen.launch.build.load_model", never)
    with pytest.raises(error, match=message):
        sharpen.train("m", "grpo", ROWS, reward=reward, run=tmp_path / "run", quiet=True, **SMALL)
    assert not (tmp_path / "run").exists()
