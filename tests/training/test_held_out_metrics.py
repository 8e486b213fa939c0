"""Held-out measures as metrics: which are known before a run, and which value is the best."""

import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from sharpen.errors import RecipeError
from sharpen.evaluation.estimators import Estimate
from sharpen.evaluation.runner import Evaluation
from sharpen.launch.held_out import measure_names
from sharpen.launch.inputs import read_inputs
from sharpen.launch.run import start
from sharpen.recipe.loading import make_recipe
from sharpen.training.evaluation import HeldOutEvaluation
from tiny_runs import TASK, tiny_recipe, tiny_start_model, tiny_tree

NAN = math.nan


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("held_out") / "model")


def evaluation(best: str, measures: Mapping[str, float] | None = None) -> HeldOutEvaluation:
    return HeldOutEvaluation(
        lambda: Evaluation({n: Estimate(value, value, value) for n, value in (measures or {}).items()}, ()), 1, best
    )


def best_steps(by: str, values: list[float]) -> list[int]:
    """The steps that were the best so far when they were measured."""
    held_out, best, steps = evaluation(by), None, []
    for step, value in enumerate(values):
        if (better := held_out.better({f"held_out/{by}": value}, best)) is not None:
            best, steps = better, [*steps, step]
    return steps


def test_nan_is_never_the_best() -> None:
    assert best_steps("reward", [NAN, 0.1, NAN, 0.3, 0.2]) == [1, 3]
    assert best_steps("loss", [NAN, 0.3, NAN, 0.1, 0.2]) == [1, 3]
    assert best_steps("reward", [NAN, NAN]) == []


def test_lower_is_better_where_the_catalogue_says_so() -> None:
    values = [0.3, 0.1, 0.2, 0.5]
    for falls in ("truncated", "math/truncated", "math/loss"):
        assert best_steps(falls, values) == [0, 1]
    # A reward rises whatever its name; of a figure that is not known, more is better.
    for rises in ("pass@1", "reward/loss", "math/reward/loss", "my_figure"):
        assert best_steps(rises, values) == [0, 3]


def test_a_checkpoint_that_has_nan_as_its_best_is_beaten_by_any_number() -> None:
    assert evaluation("reward").better({"held_out/reward": -5.0}, NAN) == -5.0
    assert evaluation("loss").better({"held_out/loss": 5.0}, NAN) == 5.0


def test_what_was_not_measured_this_time_is_not_the_best() -> None:
    assert evaluation("reward/style").better({"held_out/reward": 1.0}, None) is None


def test_a_measure_that_applied_to_no_prompt_is_left_out_of_the_metrics() -> None:
    measures = {"reward/style": Estimate(NAN, NAN, NAN), "reward": Estimate(0.5, NAN, NAN)}
    found = HeldOutEvaluation(lambda: Evaluation(measures, ()), 1, None).measured()[0]
    assert found.pop("time/evaluation_s") >= 0
    assert found == {"held_out/reward": 0.5}


METHODS = {
    "sft": {},
    "grpo": {"reward": ["task", {"name": "contains", "column": "answer"}], "evaluation": {"k": [1, 2], "n": 2}},
    "grpo alone": {"reward": "task", "evaluation": {"k": [1], "n": 1}},
    "dpo": {},
    "reward_model": {},
    "process_reward_model": {},
}


@pytest.mark.parametrize("name", METHODS)
def test_the_measures_are_known_before_anything_is_measured(name: str, model: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(tmp_path / "run", model, name.partition(" ")[0], training={"steps": 1}, **METHODS[name])
    recipe = recipe.model_copy(update={"checkpoint": recipe.checkpoint.model_copy(update={"best": None})})
    held_out = read_inputs(recipe).held_out
    assert held_out is not None
    known = measure_names(held_out, recipe.method, recipe.evaluation)
    row = start(recipe).metric_rows()[0]
    keys = [key.removeprefix("held_out/") for key in row if key.startswith("held_out/")]
    measured = [key for key in keys if not key.endswith(("_low", "_high"))]
    assert (list(known.names), known.others) == (measured, ())
    assert all(key in known for key in keys)
    assert f"x/{measured[0]}" not in known
    assert f"x/{measured[0]}_low" in known.prefixed("x/")


SOURCES = {
    "plain": {"task": TASK},
    "strict": {"task": TASK, "reward": ["task", {"name": "contains", "column": "answer"}]},
}


@pytest.mark.parametrize(
    ("method", "best"), [("grpo", "strict/reward/contains"), ("reward_model", "plain/pair_accuracy")]
)
def test_the_measures_of_each_source_are_known_too(method: str, best: str, model: Path, tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "run", model, method, checkpoint={"best": best}, training={"steps": 1})
    sources = SOURCES if method == "grpo" else {name: {"task": TASK} for name in SOURCES}
    recipe = make_recipe({**tree, "data": {"sources": sources}})
    held_out = read_inputs(recipe).held_out
    assert held_out is not None
    known = measure_names(held_out, recipe.method, recipe.evaluation)
    keys = [key.removeprefix("held_out/") for key in start(recipe).metric_rows()[0] if key.startswith("held_out/")]
    assert list(known.names) == [key for key in keys if not key.endswith(("_low", "_high"))]
    assert best in known.names
    changes = {"run": tmp_path / "other", "data": {"sources": sources}, "checkpoint": {"best": "plain/reward/contains"}}
    with pytest.raises(RecipeError, match="`plain/reward/contains` is not measured"):
        start(make_recipe({**tree, **changes}))
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("method", "best", "said"),
    [
        ("grpo", "pass@4", "`pass@4` is not measured. Did you mean `pass@2`? Known: pass@1, pass@2, maj@2, reward, "),
        ("grpo", "reward/arithmetic", "`reward/arithmetic` is not measured."),
        ("sft", "loss", "`loss` is not measured."),
        ("reward_model", "pair_acuracy", "`pair_acuracy` is not measured. Did you mean `pair_accuracy`? Known: loss, "),
    ],
)
def test_the_best_by_something_that_is_not_measured_is_an_error_before_anything_is_written(
    method: str, best: str, said: str, model: Path, tmp_path: Path
) -> None:
    recipe = tiny_recipe(tmp_path / "run", model, method, checkpoint={"best": best})
    with pytest.raises(RecipeError) as error:
        start(recipe)
    assert str(error.value).startswith(f"checkpoint.best: {said}")
    assert not (tmp_path / "run").exists()


OWN = """
from sharpen.rewards.reward import Reward
from sharpen.types import Score

class Two(Reward):
    name = "two"

    def score(self, groups):
        return [tuple(Score(1.0, {"a": 1.0, "b": 0.0}) for _ in g.trajectories) for g in groups]
"""


@pytest.mark.parametrize(("best", "known"), [("reward/b", True), ("reward/c", False)])
def test_parts_that_only_an_own_reward_knows_are_checked_when_they_are_first_measured(
    best: str, known: bool, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(OWN)
    recipe = tiny_recipe(
        tmp_path / "run", model, "grpo", reward=f"{tmp_path / 'own.py'}:Two", checkpoint={"best": best}
    )
    if known:
        assert start(recipe).metric_rows()[-1]["held_out/reward/b"] == 0.0
        return
    with pytest.raises(RecipeError, match=r"checkpoint\.best: `reward/c` is not measured"):
        start(recipe)
    assert not (tmp_path / "run" / "metrics.jsonl").exists()
