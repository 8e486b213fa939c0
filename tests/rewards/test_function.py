from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from sharpen.errors import RewardError
from sharpen.rewards.function import FunctionReward
from sharpen.types import Score


def totals(function: Callable[..., Any], group: Any) -> list[float | None]:
    (scores,) = FunctionReward(function).score([group])
    return [score.total for score in scores]


def test_only_the_columns_of_the_signature_are_passed(group: Any) -> None:
    def longer_than(completion: str, limit: int, bonus: float = 0.5) -> float:
        return len(completion) - limit + bonus

    assert totals(longer_than, group(["abc", "abcde"], limit=3, unused=1, prompt="hi")) == [0.5, 2.5]


def test_keywords_take_all_columns_and_the_prompt(group: Any) -> None:
    seen = {}

    def reward(text: str, **row: Any) -> float:
        seen.update(row)
        return 1

    assert totals(reward, group(["x"], prompt="hi", answer="4", text="a column named like the parameter")) == [1.0]
    assert seen == {"prompt": "hi", "answer": "4"}


def test_the_completion_may_stand_anywhere(group: Any) -> None:
    def reversed_order(prompt: str, completion: str) -> float:
        return float(completion == prompt)

    def keyword_only(*, completion: str) -> float:
        return len(completion)

    def own_column(completion: str, **row: Any) -> float:
        return float("completion" in row)

    assert totals(reversed_order, group(["a", "b"], prompt="a")) == [1.0, 0.0]
    assert totals(keyword_only, group(["abc"])) == [3.0]
    assert totals(len, group(["abcd"])) == [4.0]
    assert totals(own_column, group(["x"], completion="the demonstration")) == [0.0]


@pytest.mark.parametrize(
    ("value", "total"),
    [
        (True, 1.0),
        (3, 3.0),
        (-0.5, -0.5),
        (np.float32(0.25), 0.25),
        (np.bool_(True), 1.0),
        (np.array(2), 2.0),
        (torch.tensor(0.5, requires_grad=True), 0.5),
        (Fraction(1, 4), 0.25),
        (None, None),
    ],
)
def test_numbers_of_all_kinds(value: object, total: float | None, group: Any) -> None:
    (scores,) = FunctionReward(lambda completion: value, "r").score([group(["x"])])
    assert scores == (Score(total, {"r": total}),)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (float("nan"), "returned nan"),
        (float("-inf"), "returned -inf"),
        (10**400, "returned inf"),
        (np.float64("nan"), "returned nan"),
        ("1.0", "returned a str"),
        ([1.0], "returned a list"),
        (np.ones(1), "returned a ndarray"),
        (1 + 2j, "returned a complex"),
    ],
)
def test_what_is_no_finite_number_is_refused_by_name(value: object, message: str, group: Any) -> None:
    def scorer(completion: str) -> Any:
        return value if completion == "bad" else 1.0

    with pytest.raises(RewardError, match=message) as caught:
        FunctionReward(scorer).score([group(["good", "bad"], id="row 7")])
    assert "'scorer'" in str(caught.value)
    assert "prompt 'row 7', completion 1 ('bad')" in str(caught.value)


def test_what_the_function_raises_is_recorded_with_the_sample(group: Any) -> None:
    def fragile(completion: str) -> float:
        return 1.0 / len(completion)

    (scores,) = FunctionReward(fragile).score([group(["ab", ""])])
    assert scores[0] == Score(0.5, {"fragile": 0.5})
    assert scores[1].total is None
    assert scores[1].parts == {"fragile": None}
    assert scores[1].error is not None
    assert scores[1].error.startswith(
        "fragile raised ZeroDivisionError: float division by zero (test_function.py, line"
    )


def test_a_missing_column_is_named_before_the_first_step() -> None:
    def reward(completion: str, answer: str, unit: str = "cm") -> float:
        return 0.0

    FunctionReward(reward).check_columns(["prompt", "answer"], "train.jsonl")
    with pytest.raises(RewardError) as caught:
        FunctionReward(reward).check_columns(["prompt", "answers"], "train.jsonl")
    assert str(caught.value) == (
        "reward 'reward' needs the column 'answer', which train.jsonl does not have; "
        "its columns are: answers, prompt. Did you mean `answers`? If another column holds it, say which: "
        "`data.columns: {answer: COLUMN}`"
    )


def test_functions_that_cannot_be_called_so_are_refused() -> None:
    def batched(completions: list[str], **row: Any) -> list[float]:
        return [0.0]

    with pytest.raises(RewardError, match="once for each completion"):
        FunctionReward(batched)
    with pytest.raises(RewardError, match="no parameter for the completion"):
        FunctionReward(lambda: 1.0)
    with pytest.raises(RewardError, match="cannot be called"):
        FunctionReward(3)  # type: ignore[arg-type]


def test_settings_win_over_columns_and_must_be_known(group: Any) -> None:
    def reward(completion: str, limit: int) -> float:
        return limit

    bound = FunctionReward(reward, settings={"limit": 5})
    bound.check_columns([], "a list")
    assert bound.score([group(["x"], limit=3)])[0][0].total == 5.0
    with pytest.raises(RewardError, match=r"no setting 'limits'\. Did you mean `limit`"):
        FunctionReward(reward, settings={"limits": 5})


def test_an_object_may_say_what_its_answer_is() -> None:
    class Last:
        def __call__(self, completion: str) -> float:
            return 1.0

        def answer(self, completion: str) -> str | None:
            return completion[-1:] or None

    reward = FunctionReward(Last())
    assert (reward.name, reward.has_answer, reward.answer("ab"), reward.answer("")) == (
        "Last",
        True,
        "b",
        None,
    )
    assert not FunctionReward(lambda completion: 1.0).has_answer
