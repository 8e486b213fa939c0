import time
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from sharpen.rewards import resolve_reward
from sharpen.rewards.text import regex
from sharpen.rewards.text.regex import Regex
from sharpen.types import Score


@pytest.fixture(scope="module", autouse=True)
def _end_the_workers() -> Iterator[None]:
    yield
    regex._workers.close()


@pytest.mark.parametrize(
    ("settings", "completion", "reward"),
    [
        ({"pattern": r"\d+"}, " 15\n", 1.0),
        ({"pattern": r"\d+"}, "is 15", 0.0),
        ({"pattern": r"\d+", "mode": "search", "value": 0.2}, "is 15", 0.2),
        ({"pattern": r"(?is)step 1.*step 2", "mode": "search"}, "Step 1\nStep 2", 1.0),
        ({"pattern": "é.", "mode": "search"}, "é\ud800", 1.0),
        ({"pattern": ""}, "", 1.0),
    ],
)
def test_regex(settings: dict[str, Any], completion: str, reward: float) -> None:
    assert Regex(**settings)(completion) == reward


@pytest.mark.parametrize("settings", [{"pattern": "("}, {"pattern": "a", "value": float("nan")}, {"timeout_s": 0}])
def test_settings_that_mean_nothing_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Regex(**{"pattern": "a", **settings})


@pytest.mark.parametrize(
    ("pattern", "hostile", "other"),
    [
        (".*;.*", "a" * 1_000_000, "a;b"),  # a place of n characters to begin at, and n to read from each
        ("(a+)+b", "a" * 100, "aab"),
        (r"(\w+\s?)*!", "word " * 30, "a word!"),
    ],
)
def test_a_pattern_that_takes_too_long_scores_0_for_its_sample_alone(
    pattern: str, hostile: str, other: str, group: Any
) -> None:
    reward = resolve_reward({"name": "regex", "pattern": pattern, "mode": "search", "timeout_s": 0.3})
    started_s, computed_s = time.monotonic(), time.process_time()
    ((slow, *others),) = reward.score([group([hostile, *[other] * 20])])
    assert time.monotonic() - started_s < 10
    assert time.process_time() - computed_s < 1
    assert slow == Score(0.0, {"regex": 0.0}, timed_out=True, refused="regex: no answer within 0.3 s")
    assert [score.total for score in others] == [1.0] * 20
