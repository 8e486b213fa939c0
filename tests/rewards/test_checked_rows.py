"""Rows that a reward cannot score are found before anything is trained."""

import datetime
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import pytest

from sharpen.errors import RewardError
from sharpen.rewards import check, resolve_reward
from sharpen.rewards.function import FunctionReward

WHERE = "train.csv:7"


def needs(completion: str, answer: str) -> float:
    return float(completion == answer)


def may_lack(completion: str, answer: str | None) -> float | None:
    return None if answer is None else needs(completion, answer)


def has_default(completion: str, answer: object = "7") -> float:
    return 0.0


@pytest.mark.parametrize(
    ("reward", "row", "message"),
    [
        (needs, {"prompt": "a"}, "no column 'answer', which other rows have and the reward 'needs' reads"),
        (needs, {"answer": None}, r"no value in column 'answer' \(None\).*give its parameter a default"),
        (needs, {"answer": float("nan")}, r"no value in column 'answer' \(nan\)"),
        (may_lack, {"prompt": "a"}, "no column 'answer'"),
        ("exact_answer", {"answer": None}, r"no value in column 'answer' \(None\).*leave it out$"),
        ("exact_answer", {"answer": " "}, "the column 'answer' of this row is empty"),
        ("math", {"answer": ["5"]}, "must be a text or a number, not list"),
        ("exact_answer", {"answer": datetime.time(12, 30)}, "must be a text or a number, not time"),
        ("math", {"answer": b"5"}, "must be a text or a number, not bytes"),
        ({"name": "contains", "column": "words"}, {"words": ["moon", ""]}, "holds no words"),
        ({"name": "contains", "column": "words"}, {"words": 3}, "holds no words"),
        ({"name": "json_schema", "column": "schema"}, {"schema": "{"}, "is not JSON"),
        ("code_tests", {"tests": "[1]"}, "test 1 in the column 'tests' of this row has no 'input'"),
        ("code_asserts", {"test_list": ["f(1)"]}, "has no assert|no assert"),
        ("code_check", {"test": "pass", "entry_point": "f", "prompt": "a = 1"}, "defines no function check"),
        (
            [{"name": "exact_answer"}, {"name": "contains", "column": "words"}],
            {"answer": "a", "words": None},
            "no value in column 'words'",
        ),
    ],
)
def test_a_row_that_cannot_be_scored_is_named(reward: Any, row: Mapping[str, Any], message: str) -> None:
    with pytest.raises(RewardError, match=f"^{WHERE}: .*({message})"):
        resolve_reward(reward).check_row(row, WHERE)


@pytest.mark.parametrize(
    ("reward", "row"),
    [
        (needs, {"answer": ""}),
        (may_lack, {"answer": None}),
        (has_default, {"answer": None}),
        (has_default, {}),
        ("exact_answer", {"answer": 0}),
        ("math", {"answer": Decimal("1.5")}),
        ({"name": "contains", "column": "words"}, {"words": "moon"}),
        ("code_asserts", {"test_list": '["assert f(1) == 2"]'}),
    ],
)
def test_a_row_that_can_be_scored_is_not_refused(reward: Any, row: Mapping[str, Any]) -> None:
    resolve_reward(reward).check_row(row, WHERE)


@pytest.mark.parametrize(
    ("words", "completion", "reward"),
    [('["moon", "river"]', "moon, river", 1.0), ('["moon", "river"]', "moon", 0.0), ("moon river", "moon river", 1.0)],
)
def test_words_of_a_table_are_a_list_as_json(words: str, completion: str, reward: float) -> None:
    contains = resolve_reward({"name": "contains", "column": "words"})
    assert isinstance(contains, FunctionReward)
    assert contains.function(completion, words=words) == reward


def takes_all(completion: str, **row: Any) -> float:
    return 0.0


@pytest.mark.parametrize(
    ("reward", "read"),
    [
        (needs, ("answer",)),
        (takes_all, ("prompt", "answer", "tests", "fn_name", "id")),
        ("exact_answer", ("answer",)),
        ("code_tests", ("tests", "fn_name")),
        ([{"name": "exact_answer", "column": "id"}, "code_tests"], ("tests", "fn_name", "id")),
        ({"name": "tags"}, ()),
    ],
)
def test_the_columns_that_a_reward_reads(reward: Any, read: tuple[str, ...]) -> None:
    assert resolve_reward(reward).columns_read(("prompt", "answer", "tests", "fn_name", "id")) == read


def test_rows_in_forms_that_are_recognised_are_checked_with_their_prompts() -> None:
    def asked(completion: str, prompt: str, answer: str) -> float:
        return float(completion == answer and prompt == "1+1?")

    report = check(asked, [{"question": "1+1?", "answer": "2"}] * 3, reference="answer")
    assert (report.references.tried, report.references.full) == (3, 3)
