from pathlib import Path
from typing import Any

import numpy as np
import pytest

from byte_tokenizer import byte_tokenizer
from sharpen.data.collate import collate
from sharpen.errors import RewardError
from sharpen.models.character_model import character_tokenizer
from sharpen.rewards import FunctionReward, StepReward, WeightedSum, resolve_reward
from sharpen.types import Score, StepValue

CHARACTERS = character_tokenizer("0123456789+-=;#ab", context=64)
PROBLEM = {"prompt": "47+85-36=", "answer": "96"}


def returning(value: Any, **options: Any) -> StepReward:
    reward = StepReward(lambda completion: value, "s", **options)
    reward.use_tokenizer(CHARACTERS)
    return reward


def score_of(reward: StepReward, group: Any) -> Score:
    ((score,),) = reward.score([group])
    return score


def test_the_verifier_of_arithmetic_in_a_recipe(written: Any) -> None:
    reward = resolve_reward({"name": "steps", "function": "sharpen.data.tasks.arithmetic:step_rewards", "total": "min"})
    reward.use_tokenizer(CHARACTERS)
    reward.check_columns(["prompt", "answer"], "rows")
    with pytest.raises(RewardError, match="'steps' needs the column 'answer'"):
        reward.check_columns(["prompt"], "rows")
    texts = ["47+85=132;132-36=96#96", "47+85=132;132-36=95#95", "#96", "47+85=132;1"]
    (scores,) = reward.score([written(CHARACTERS, texts, unended=[3], **PROBLEM)])
    # Characters are tokens; the last step ends at the end-of-sequence token, or where it was cut off.
    assert [s.steps for s in scores] == [
        (StepValue(9, 1.0), StepValue(22, 1.0)),
        (StepValue(9, 1.0), StepValue(22, 0.0)),
        (StepValue(3, 1.0),),
        (StepValue(9, 1.0), StepValue(10, 0.0)),
    ]
    assert [s.total for s in scores] == [1.0, 0.0, 1.0, 0.0]
    assert scores[1].parts == {"steps": 0.0}


@pytest.mark.parametrize(("total", "expected"), [("mean", 0.5), ("min", 0.2), ("last", 0.8), ("product", 0.08)])
def test_totals(written: Any, total: Any, expected: float) -> None:
    reward = returning([0.5, 0.2, 0.8], total=total, separator=";")
    score = score_of(reward, written(CHARACTERS, ["1;2;3"]))
    assert score.total == pytest.approx(expected, rel=1e-12)
    assert score.steps == (StepValue(1, 0.5), StepValue(3, 0.2), StepValue(5, 0.8))


def test_the_mean_is_the_default_and_arrays_are_lists(written: Any) -> None:
    group = written(CHARACTERS, ["1;2"])
    assert score_of(returning(np.array([1.0, 0.0]), separator=";"), group).total == 0.5
    assert score_of(returning([(np.int64(2), True), (3, np.float32(0))]), group).steps == (
        StepValue(1, 1.0),
        StepValue(3, 0.0),
    )


def test_characters_are_found_in_the_policys_tokens(written: Any) -> None:
    tokenizer = byte_tokenizer("b;")
    reward = returning([1, 0, 1], separator=";")
    reward.use_tokenizer(tokenizer)
    # The tokens are two bytes of é, ;, a, b;, c and the end.
    assert score_of(reward, written(tokenizer, ["é;ab;c"])).steps == (
        StepValue(2, 1.0),
        StepValue(4, 0.0),
        StepValue(6, 1.0),
    )


def test_the_steps_reach_the_batch(written: Any) -> None:
    group = written(CHARACTERS, ["1;2", "1"])
    values = {"1;2": [0.25, 0.75], "1": [0.5]}
    reward = StepReward(lambda completion: values[completion], separator=";")
    reward.use_tokenizer(CHARACTERS)
    batch = collate([group.scored(reward.score([group])[0])])
    nan = float("nan")
    np.testing.assert_equal(batch["step_rewards"].numpy(), [[nan, 0.25, nan, 0.75], [nan, 0.5, nan, nan]])


def test_none_does_not_apply_and_what_raises_is_recorded(written: Any) -> None:
    group = written(CHARACTERS, ["1", "2"])
    assert score_of(returning(None), written(CHARACTERS, ["1"])) == Score(None, {"s": None})

    def picky(completion: str) -> list[tuple[int, float]]:
        if completion == "2":
            raise KeyError("two")
        return [(1, 1.0)]

    reward = StepReward(picky)
    reward.use_tokenizer(CHARACTERS)
    (scores,) = reward.score([group])
    assert scores[0] == Score(1.0, {"picky": 1.0}, (StepValue(1, 1.0),))
    assert (scores[1].total, scores[1].steps) == (None, ())
    assert "picky raised KeyError: 'two'" in str(scores[1].error)


@pytest.mark.parametrize(
    ("value", "separator", "message"),
    [
        (1.0, None, "returned a float for prompt '1+1=', completion 0 ('1;2'); it must return a list with one (end"),
        ("12", ";", "returned a str for prompt '1+1=', completion 0 ('1;2'); it must return a list with one value"),
        ([], None, "returned no steps for prompt '1+1='"),
        ([1, 0], None, "returned the step 1 for prompt '1+1='"),
        ([(1.5, 1)], None, "returned the step (1.5, 1)"),
        ([(2, "x")], None, "returned a str for step 1 of prompt '1+1='"),
        ([(2, 1), (3, float("nan"))], None, "returned nan for step 2 of prompt '1+1='"),
        ([1, float("inf")], ";", "returned inf for step 2 of"),
        ([1, None], ";", "returned a NoneType for step 2 of"),
        ([1], ";", "returned 1 values for the 2 steps of prompt '1+1='"),
        ([(2, 1), (1, 1)], None, "returned step ends that do not increase, [2, 1], for prompt"),
        ([(2, 1), (2, 1), (3, 1)], None, "do not increase, [2, 2, 3]"),
        ([(0, 1), (3, 1)], None, "do not increase, [0, 3]"),
        ([(2, 1), (4, 1)], None, "returned a step that ends at character 4, beyond the 3 characters of prompt '1+1='"),
    ],
)  # fmt: skip
def test_what_is_no_list_of_steps_is_named(written: Any, value: Any, separator: Any, message: str) -> None:
    with pytest.raises(RewardError) as caught:
        returning(value, separator=separator).score([written(CHARACTERS, ["1;2"])])
    assert "reward 's'" in str(caught.value)
    assert message in str(caught.value)


def test_the_last_end_may_be_that_of_the_step_before(written: Any) -> None:
    score = score_of(returning([(2, 1), (2, 0)]), written(CHARACTERS, ["1;"]))
    assert score.steps == (StepValue(1, 1.0), StepValue(2, 0.0))


def test_it_needs_the_tokenizer(written: Any) -> None:
    with pytest.raises(RewardError, match=r"reward 'f' .* needs the policy's tokenizer: call reward.use_tokenizer"):
        StepReward(lambda completion: [(1, 1.0)], "f").score([written(CHARACTERS, ["1"])])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "reward 'steps': `function`: Field required"),
        ({"function": "word"}, "unknown step verifier `word`. One of your own is written module:Name"),
        (
            {"function": "math:sqrt", "total": "means"},
            "`total`: Input should be 'mean', 'min', 'last' or 'product' (given: 'means')",
        ),
        ({"function": "math:sqrt", "separator": ""}, "`separator`: String should have at least 1 character"),
        ({"function": "math:sqrt", "separator": 3}, "`separator`: Input should be a valid string (given: 3)"),
        ({"function": "math:sqr"}, "'math' has no 'sqr'. Did you mean `sqrt`"),
    ],
)
def test_bad_settings(settings: Any, message: str) -> None:
    with pytest.raises(RewardError) as caught:
        resolve_reward({"name": "steps", **settings})
    assert message in str(caught.value)


def test_a_function_of_a_file_with_settings_of_its_own(tmp_path: Path, written: Any) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "def scaled(completion, answer, by=1.0):\n    return [by * (s == answer) for s in completion.split(';')]"
    )
    reward = resolve_reward({"name": "steps", "function": f"{file}:scaled", "separator": ";", "by": 2, "weight": 3})
    reward.use_tokenizer(CHARACTERS)
    ((score,),) = reward.score([written(CHARACTERS, ["1;2"], answer="2")])
    assert (score.total, score.steps) == (3.0, (StepValue(1, 0.0), StepValue(3, 6.0)))


def test_an_outcome_beside_steps_stands_at_the_last_token(written: Any) -> None:
    """Summed from any token on, steps and outcome give what the completion still has before it."""
    group = written(CHARACTERS, ["1;2", "1"], unended=[1])
    values = {"1;2": [0.25, 0.75], "1": None}
    steps = StepReward(lambda completion: values[completion], "s", separator=";")
    total = WeightedSum([(steps, 2.0), (FunctionReward(len, "length"), -1.0), (FunctionReward(len, "logged"), 0.0)])
    total.use_tokenizer(CHARACTERS)
    (scores,) = total.score([group])
    assert scores[0].steps == (StepValue(1, 0.5), StepValue(3, 1.5), StepValue(3, -3.0))
    assert scores[0].total == 2 * 0.5 - 3
    # Where the steps do not apply the outcome still counts, at the same place.
    assert scores[1].steps == (StepValue(0, -1.0),)
    batch = collate([group.scored(scores)])
    nan = float("nan")
    np.testing.assert_equal(batch["step_rewards"].numpy(), [[nan, 0.5, nan, -1.5], [-1.0, nan, nan, nan]])


def test_without_weight_steps_are_not_there_and_outcomes_have_none(written: Any) -> None:
    group = written(CHARACTERS, ["1;2"])
    total = WeightedSum([(returning([1, 0], separator=";"), 0.0), (FunctionReward(len, "length"), 1.0)])
    ((score,),) = total.score([group])
    assert (score.total, score.steps) == (3.0, ())
