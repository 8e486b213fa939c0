from typing import Any

import pytest
from pydantic import ValidationError

from sharpen.errors import RewardError
from sharpen.rewards import resolve_reward
from sharpen.rewards.text.repetition import Repetition
from sharpen.types import Group, Prompt, single_turn


@pytest.mark.parametrize(
    ("settings", "completion", "reward"),
    [
        # n-grams, and how many of them are different.
        ({"ngram": 2}, "a b c d", 0.0),  # 3, 3
        ({"ngram": 2}, "a b a b a b", -(1 - 2 / 5)),  # ab ba ab ba ab
        ({"ngram": 1}, "a a a b", -(1 - 2 / 4)),
        ({"ngram": 3}, "the cat sat the cat sat the cat sat", -(1 - 3 / 7)),
        ({"ngram": 2, "penalty": -0.5}, "A b, a B, a b", -0.5 * (1 - 3 / 7)),  # ab b, ,a ab b, ,a ab
        ({"ngram": 1}, "好好好", -(1 - 1 / 3)),
        ({}, "one two three", 0.0),
        ({}, "", 0.0),
    ],
)
def test_repetition(settings: dict[str, Any], completion: str, reward: float) -> None:
    assert Repetition(**settings)(completion) == pytest.approx(reward)


def test_a_text_that_goes_round_in_circles_is_near_the_whole_penalty() -> None:
    assert Repetition()("I think so, wait, " * 500) < -0.99


@pytest.mark.parametrize("settings", [{"ngram": 0}, {"penalty": 1}, {"penalty": float("-inf")}])
def test_repetition_settings_that_mean_nothing_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Repetition(**settings)


def of_length(*lengths: int) -> Group:
    completions = tuple(single_turn((1,), (1,) * n, "text") for n in lengths)
    return Group(Prompt("p", (1,), "?", {}), completions)


def test_soft_overlong_is_that_of_the_paper() -> None:
    """DAPO's own numbers: at most 20480 tokens are sampled, of which the last 4096 are punished."""
    reward = resolve_reward({"name": "soft_overlong", "l_max": 20480, "l_cache": 4096})
    (scores,) = reward.score([of_length(0, 1, 16384, 16385, 18432, 20479, 20480, 20481, 40000)])
    assert [score.total for score in scores] == [0, 0, 0, -1 / 4096, -0.5, -4095 / 4096, -1, -1, -1]
    assert scores[4].parts == {"soft_overlong": -0.5}


def test_soft_overlong_counts_what_the_model_wrote() -> None:
    (completion,) = of_length(10).trajectories
    by_tool = single_turn((1,), (1,) * 10, "text", loss_mask=(True,) * 4 + (False,) * 6)
    reward = resolve_reward({"name": "soft_overlong", "l_max": 10, "l_cache": 10})
    (scores,) = reward.score([Group(Prompt("p", (1,), "?", {}), (completion, by_tool))])
    assert [score.total for score in scores] == [-1.0, -0.4]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "`l_max`: Field required"),
        ({"l_max": 10, "l_cache": 11}, r"l_cache \(11\) is larger than l_max \(10\)"),
        ({"l_max": 10, "l_cache": 0}, "`l_cache`: Input should be greater than 0"),
        ({"l_max": 10, "l_cahe": 1}, "unknown setting `l_cahe`. Did you mean `l_cache`"),
    ],
)
def test_soft_overlong_settings_that_mean_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RewardError, match=message):
        resolve_reward({"name": "soft_overlong", **settings})
