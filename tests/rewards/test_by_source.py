"""Each prompt is scored by the reward of its source."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from sharpen.data.collate import collate
from sharpen.errors import RewardError
from sharpen.functional.advantages import decoupled_advantages
from sharpen.rewards import FunctionReward, Gate, Reward, WeightedSum
from sharpen.rewards.by_source import BySource
from sharpen.rewards.scoring import score_step
from sharpen.rewards.text.verifiers import ExactAnswer
from sharpen.types import Group, Score, WeightedReward


def of(source: str, group: Group) -> Group:
    return replace(group, prompt=replace(group.prompt, source=source))


def length(completion: str) -> float:
    return float(len(completion))


def vowels(completion: str) -> float:
    return float(sum(letter in "aeiou" for letter in completion))


def test_every_group_gets_its_sources_reward_in_its_place(group: Any) -> None:
    groups = [of("b", group(["aa", "xyz"])), of("a", group(["aa", "xyz"])), of("b", group(["eee"]))]
    reward = BySource({"a": FunctionReward(length), "b": FunctionReward(vowels)})
    scores, seconds = reward.score_timed(groups)
    assert [[score.total for score in of_group] for of_group in scores] == [[2, 0], [2, 3], [3]]
    assert [of_group[0].parts for of_group in scores] == [{"vowels": 2}, {"length": 2}, {"vowels": 3}]
    assert list(seconds) == ["length", "vowels"]


def test_only_sources_that_are_there_are_asked(group: Any) -> None:
    def never(completion: str) -> float:
        raise AssertionError("no prompt of this source")

    scores, seconds = BySource({"a": FunctionReward(length), "b": FunctionReward(never)}).score_timed(
        [of("a", group(["xy"]))]
    )
    assert scores == [(Score(2.0, {"length": 2.0}),)]
    assert list(seconds) == ["length"]


@pytest.mark.parametrize("kind", ["alone", "in a sum"])
def test_groups_of_a_source_without_a_reward_get_no_score(kind: str, group: Any) -> None:
    own: Reward = FunctionReward(length) if kind == "alone" else WeightedSum([(length, 2.0), (vowels, 1.0)])
    groups = [of("b", group(["aa", "xyz"])), of("a", group(["ae"])), of("b", group(["eee"]))]
    scores, seconds = BySource({"a": own}).score_timed(groups)
    assert [[score.total for score in of_group] for of_group in scores] == [
        [None, None],
        [2.0 if kind == "alone" else 2 * 2.0 + 2.0],
        [None],
    ]
    assert len(seconds) == 1
    assert BySource({"a": own}).score([groups[0]]) == [(Score(None), Score(None))]


def test_a_step_without_a_prompt_that_has_a_reward_is_no_failure(group: Any) -> None:
    reward = BySource({"a": FunctionReward(lambda completion: None)})
    scored, _ = score_step(reward, [of("b", group(["aa"]))], max_failure_rate=0.0)
    assert [score.total for score in scored[0].scores] == [None]
    with pytest.raises(RewardError, match="applied to none of the completions of a step"):
        score_step(reward, [of("a", group(["aa"])), of("b", group(["aa"]))], max_failure_rate=0.0)


def test_a_reward_that_sources_share_scores_their_groups_in_one_call(group: Any) -> None:
    class Counting(Reward):
        name = "counting"

        def __init__(self) -> None:
            self.calls: list[list[str]] = []

        def score(self, groups: Sequence[Group]) -> list[tuple[Score, ...]]:
            self.calls.append([group.prompt.source for group in groups])
            return [(Score(float(len(self.calls))),) * len(group.trajectories) for group in groups]

    shared = Counting()
    groups = [of(source, group(["x"])) for source in ("a", "b", "c", "a")]
    scores, seconds = BySource({"a": shared, "b": Counting(), "c": shared}).score_timed(groups)
    assert shared.calls == [["a", "c", "a"]]
    assert [score.total for (score,) in scores] == [1.0] * 4
    # Two rewards of one name.
    assert list(seconds) == ["counting", "counting_2"]


def test_rewards_of_different_sources_run_concurrently(group: Any) -> None:
    both = threading.Barrier(2, timeout=10)

    def first(completion: str) -> float:
        return float(both.wait() >= 0)

    def second(completion: str) -> float:
        return float(both.wait() >= 0)

    groups = [of("a", group(["x"])), of("b", group(["x"]))]
    scores = BySource({"a": FunctionReward(first), "b": FunctionReward(second)}).score(groups)
    assert [score.total for (score,) in scores] == [1.0, 1.0]


def test_votes_and_steps_are_there_if_all_have_them(group: Any) -> None:
    class Steps(Reward):
        name = "steps"
        gives_steps = True

        def score(self, groups: Sequence[Group]) -> list[tuple[Score, ...]]:
            raise AssertionError

    answers, plain = FunctionReward(ExactAnswer()), FunctionReward(length)
    assert BySource({"a": answers, "b": answers}).has_answer
    assert not BySource({"a": answers, "b": plain}).has_answer
    assert BySource({"a": Steps(), "b": Steps()}).gives_steps
    assert not BySource({"a": Steps(), "b": plain}).gives_steps
    assert BySource({"a": answers, "b": plain}).of_source("a") is answers
    assert answers.of_source("anything") is answers
    assert BySource({"a": WeightedSum([(answers, 1), (plain, 2)]), "b": plain}).leaves() == (answers, plain, plain)


def test_the_terms_of_all_sums_are_columns_of_one_batch(group: Any) -> None:
    """GDPO of a source's groups is what it would be without the other source."""
    total = WeightedSum([(FunctionReward(length), 2.0), (FunctionReward(vowels), 0.5)])
    gated = WeightedSum([(FunctionReward(vowels), 1.0), (FunctionReward(length), 0)], gates={1: Gate(otherwise=-1.0)})
    reward = BySource({"a": total, "b": FunctionReward(length), "c": gated})
    assert reward.term_weights == (2.0, 0.5, 1.0, 1.0, 1.0)
    groups = [of("b", group(["x", "xyz"])), of("a", group(["a", "bcd"])), of("c", group(["", "ae"]))]
    scored = [g.scored(s) for g, s in zip(groups, reward.score(groups), strict=True)]
    found = [s.weighted_rewards for g in scored for s in g.scores]

    def terms(*values: float | None) -> tuple[WeightedReward, ...]:
        return tuple(WeightedReward(w, v) for w, v in zip((2.0, 0.5, 1.0, 1.0, 1.0), values, strict=True))

    assert found == [
        terms(None, None, 1, None, None),
        terms(None, None, 3, None, None),
        terms(1, 1, None, None, None),
        terms(3, 0, None, None, None),
        terms(None, None, None, 0, -1),
        terms(None, None, None, 2, 0),
    ]
    batch = collate(scored)
    assert batch.rewards_E.tolist() == [1, 3, 2.5, 6, -1, 2]
    assert batch.reward_weights == reward.term_weights
    assert batch.rewards_EK is not None
    advantages = decoupled_advantages(
        batch.rewards_EK, batch.group_E, batch.rewards_EK.new_tensor(batch.reward_weights)
    )
    # Two completions are ±1/√2 apart from their mean in units of their standard deviation.
    summed = [-1, 1, -2 + 0.5, 2 - 0.5, -2, 2]
    spread = math.sqrt(sum(s * s / 2 for s in summed) / 5)
    assert advantages.tolist() == pytest.approx([s / math.sqrt(2) / spread for s in summed])


def test_without_sums_scores_are_untouched(group: Any) -> None:
    reward = BySource({"a": FunctionReward(length), "b": FunctionReward(vowels)})
    assert reward.term_weights == ()
    assert reward.score([of("a", group(["xy"]))]) == FunctionReward(length).score([group(["xy"])])


def test_a_reward_that_fails_fails_alone(group: Any) -> None:
    def fail(completion: str) -> float:
        raise KeyError("no x")

    sums = BySource(
        {"a": FunctionReward(fail), "b": WeightedSum([(FunctionReward(length), 1.0), (FunctionReward(vowels), 1.0)])}
    )
    groups = [of("a", group(["x"])), of("b", group(["ab"]))]
    scored = [g.scored(s) for g, s in zip(groups, sums.score(groups), strict=True)]
    assert scored[0].scores[0].error is not None
    batch = collate(scored)
    assert batch.rewards_E.isnan().tolist() == [True, False]
    assert batch.rewards_EK is not None
    assert batch.rewards_EK.isnan().tolist() == [[True] * 3, [True, False, False]]
