"""How answers to tasks of reasoning-gym are read and checked here, without the package."""

import re

import pytest

from hostile_texts import random_texts
from sharpen.data.tasks.gym import GymTask
from sharpen.data.tasks.gym_checks import DECIDED, EXACT

ENTRY = {"answer": "1", "metadata": {"numbers": [1], "target": 1}}


def test_the_last_answer_is_that_of_a_pattern():
    tagged = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)
    for text in random_texts(["<answer>", "</answer>", "<answer", "/", "a", "1", "\n", " "]):
        found = tagged.findall(text)
        assert GymTask.answer(None, text) == ((found[-1] if found else text).strip() or None), repr(text)


@pytest.mark.parametrize(
    ("name", "pattern", "pieces"),
    [
        ("quantum_lock", r"[A-Ca-c](?:\s*(?:→|->|,|\s)\s*[A-Ca-c])*", ["A", "b", " ", "→", "->", "-", ","]),
        (
            "time_intervals",
            r"-?\d+(?: days?)?(?:,? ?\d+:\d+(?::\d+)?(?:\.\d+)?)?|-?\d+:\d+(?::\d+)?(?:\.\d+)?",
            ["-", "12", "3", " day", "s", ",", " ", ":", "."],
        ),
    ],
)
def test_what_may_score_full_is_what_the_same_pattern_finds_that_gives_back(name, pattern, pieces):
    right = re.compile(pattern)
    accepted = 0
    for text in random_texts(pieces, count=20_000, most_pieces=8):
        expected = right.fullmatch(text.strip()) is not None
        assert EXACT[name](text, ENTRY) is expected, repr(text)
        accepted += expected
    assert accepted > 500


def test_a_number_counts_where_it_is_the_only_one():
    assert [DECIDED["gsm_symbolic"](text, ENTRY) for text in ("it is 1.0", "1 or 2", "none")] == [True, False, False]


@pytest.mark.parametrize("name", ["countdown", "puzzle24", "game_of_life", "number_sorting"])
@pytest.mark.parametrize("answer", ["-" * 1500 + "1", "[" * 100_000, "[" * 900 + "]" * 900])
def test_an_answer_that_is_nested_too_deep_is_wrong(name, answer):
    assert {**DECIDED, **EXACT}[name](answer, ENTRY) is False
