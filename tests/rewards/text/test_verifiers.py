from typing import Any

import pytest
from pydantic import ValidationError

from sharpen.rewards.text.extraction import extract, normalise
from sharpen.rewards.text.verifiers import Contains, ExactAnswer, Tags


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("1,234", "1234"),
        ("+1,234.50", "1234.5"),
        ("007", "7"),
        ("7.", "7"),
        ("-0", "0"),
        (".5", "0.5"),
        ("−3", "-3"),
        ("$42$", "42"),
        ("  Paris. ", "paris"),
        ("New\n York", "new york"),
        ("123456789012345678901234567890.10", "123456789012345678901234567890.1"),
    ],
)
def test_the_same_answer(text: str, same: str) -> None:
    assert normalise(text) == same


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("1,23", "123"),
        ("48/6", "8"),
        ("-3", "3"),
        ("0.50000000000000000000000000000000000001", "0.5"),
        ("1e3", "1000"),
        ("", "0"),
        (".", "0"),
    ],
)
def test_another_answer(text: str, other: str) -> None:
    assert normalise(text) != normalise(other)


def test_case_counts_only_where_asked_for() -> None:
    assert normalise("Paris") == normalise("PARIS")
    assert normalise("Paris", case_sensitive=True) != normalise("PARIS", case_sensitive=True)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The total is 1,234.50 dollars.", "1,234.50"),
        ("3 apples and 4 pears", "4"),
        ("so x = -7.", "-7"),
        ("12-5", "5"),
        ("(3)-2", "2"),
        ("it is 1/2", "1/2"),
        ("it is −8", "-8"),
        ("1, 2, 3", "3"),
        ("1,2345", "2345"),
        ("1,2,3", "3"),
        ("it is -.5", "-.5"),
        ("0.25.", "0.25"),
        ("the end.5", "5"),
        ("none", None),
        ("", None),
    ],
)
def test_the_last_number(text: str, number: str | None) -> None:
    assert extract(text, "last_number") == number


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so \boxed{5}", "5"),
        (r"\boxed{4}, no, \boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{5", None),
        (r"\boxed{}", None),
        ("5", None),
    ],
)
def test_the_last_box(text: str, answer: str | None) -> None:
    assert extract(text, "boxed") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("12+3=15\n#### 15", "15"),
        ("#### 1\n#### 2\nthat is it", "2"),
        ("####", None),
        ("15", None),
    ],
)
def test_after_the_marker(text: str, answer: str | None) -> None:
    assert extract(text, "marker") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a</think><answer> 15 </answer>", "15"),
        ("<answer>1</answer><answer>2</answer>", None),
        ("<answer>1<answer>2</answer>", None),
        ("</answer>15<answer>", None),
        ("<answer></answer>", None),
        ("15", None),
    ],
)
def test_in_tags(text: str, answer: str | None) -> None:
    assert extract(text, "tags") == answer


@pytest.mark.parametrize(
    ("settings", "completion", "expected", "reward"),
    [
        ({}, " 15 ", "15", 1.0),
        ({}, "15", 15, 1.0),
        ({}, "15.0", 15.0, 1.0),
        ({}, "the answer is 15", "15", 0.0),
        ({}, "", "15", 0.0),
        ({"answer_from": "last_number"}, "7+8=15", "15", 1.0),
        ({"answer_from": "last_number"}, "15 or 16", "15", 0.0),
        ({"answer_from": "last_number"}, "The answer is 48/6", "6", 0.0),
        ({"answer_from": "last_number"}, "1/2", "2", 0.0),
        ({"answer_from": "last_number"}, "$1,500", "1500", 1.0),
        ({"answer_from": "marker"}, "so\n#### 72", "2+70=72\n#### 72", 1.0),
        ({"answer_from": "marker"}, "72", "72", 0.0),
        ({"answer_from": "marker", "marker": "#"}, "12+3=15#15", "15", 1.0),
        ({"answer_from": "marker", "marker": "#"}, "12+3=15#14", "15", 0.0),
        ({"answer_from": "tags"}, "<answer>Paris</answer>", "paris", 1.0),
        ({"answer_from": "tags", "case_sensitive": True}, "<answer>Paris</answer>", "paris", 0.0),
        ({"answer_from": "tags"}, "<answer>London</answer> <answer>Paris</answer>", "Paris", 0.0),
        ({"answer_from": "boxed"}, r"\boxed{15}", "15", 1.0),
        ({"answer_from": "boxed"}, r"\boxed{15} \boxed{}", "15", 0.0),
    ],
)
def test_exact_answer(settings: dict[str, Any], completion: str, expected: object, reward: float) -> None:
    assert ExactAnswer(**settings)(completion, answer=expected, prompt="?") == reward


def test_exact_answer_counts_votes_and_refuses_an_empty_reference() -> None:
    verifier = ExactAnswer(column="gold", answer_from="last_number")
    assert verifier.columns == ("gold",)
    assert (verifier.answer("is 1,000"), verifier.answer("is 1000.0"), verifier.answer("?")) == (
        "1000",
        "1000",
        None,
    )
    for row in ({}, {"gold": None}, {"gold": " "}):
        with pytest.raises(ValueError, match="'gold' of this row is empty"):
            verifier("5", **row)


@pytest.mark.parametrize(
    ("settings", "completion", "reward"),
    [
        ({}, "A cat sat on the Mat.", 1.0),
        ({}, "A cat sat.", 0.0),
        ({}, "A category on a mat.", 0.0),
        ({"whole_word": False}, "A category on a mat.", 1.0),
        ({"mode": "any"}, "A cat sat.", 1.0),
        ({"mode": "any"}, "A dog.", 0.0),
        ({"case_sensitive": True}, "A Cat on a mat.", 0.0),
        ({}, "", 0.0),
    ],
)
def test_contains(settings: dict[str, Any], completion: str, reward: float) -> None:
    assert Contains(words=("cat", "mat"), **settings)(completion) == reward
    by_column = Contains(column="words", **settings)
    assert by_column.columns == ("words",)
    assert by_column(completion, words=["cat", "mat"]) == reward


def test_contains_takes_a_phrase_and_refuses_nothing() -> None:
    assert Contains(column="w")("C++ is old", w="C++") == 1.0
    for words in ([], "", None, [""]):
        with pytest.raises(ValueError, match="holds no words"):
            Contains(column="w")("text", w=words)
    for settings in ({}, {"words": ("a",), "column": "w"}):
        with pytest.raises(ValidationError, match="either words"):
            Contains(**settings)


@pytest.mark.parametrize(
    ("completion", "reward"),
    [
        ("<think>two and two</think><answer>4</answer>", 1.0),
        ("\n<think>\na\n</think>\n<answer>\n4\n</answer>\n", 1.0),
        ("<answer>4</answer><think>a</think>", 0.0),
        ("<think>a</think><answer>4</answer> and more", 0.0),
        ("so <think>a</think><answer>4</answer>", 0.0),
        ("<think>a</think> so <answer>4</answer>", 0.0),
        ("<think></think><answer>4</answer>", 0.0),
        ("<think>a</think><answer> </answer>", 0.0),
        ("<think>a<think>b</think><answer>4</answer>", 0.0),
        ("<think>a</think><answer>4</answer><answer>5</answer>", 0.0),
        ("<think>a<answer>4</answer></think>", 0.0),
        ("<think>a<answer></think>4</answer>", 0.0),
        ("<think>a</think><answer>4", 0.0),
        ("", 0.0),
    ],
)
def test_tags(completion: str, reward: float) -> None:
    assert Tags()(completion) == reward


def test_tags_that_the_prompt_opens() -> None:
    assert Tags(prefilled=True)("a</think><answer>4</answer>") == 1.0
    assert Tags(prefilled=True)("<think>a</think><answer>4</answer>") == 0.0


@pytest.mark.parametrize(
    ("verifier", "settings"),
    [
        (ExactAnswer, {"colum": "a"}),
        (ExactAnswer, {"answer_from": "nowhere"}),
        (ExactAnswer, {"marker": ""}),
        (Tags, {"tags": ("a", "a")}),
        (Tags, {"tags": ()}),
    ],
)
def test_settings_that_mean_nothing_are_refused(verifier: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        verifier(**settings)
