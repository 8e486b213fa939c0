from typing import Any

import pytest

from sharpen.errors import RewardError
from sharpen.rewards import FunctionReward, Reward, WeightedSum, check_failures
from sharpen.rewards.verifiers import ExactAnswer
from sharpen.types import Score, StepValue


def constant(value: float | None, name: str) -> FunctionReward:
    return FunctionReward(lambda completion: value, name)


def failing(name: str) -> FunctionReward:
    def fail(completion: str) -> float:
        if "x" in completion:
            raise KeyError("no x")
        return 1.0

    return FunctionReward(fail, name)


class Steps(Reward):
    name = "steps"

    def __init__(self, *steps: StepValue) -> None:
        self.steps = steps

    def score(self, groups: Any) -> list[tuple[Score, ...]]:
        total = sum(step.value for step in self.steps)
        return [tuple(Score(total, {"steps": total}, self.steps) for _ in g.completions) for g in groups]


def test_the_total_is_the_weighted_sum_of_what_applies(group: Any) -> None:
    parts = [(constant(2.0, "a"), 0.5), (constant(None, "b"), 3.0), (constant(1.0, "c"), -0.25)]
    (scores,) = WeightedSum(parts).score([group(["x"])])
    assert scores == (Score(0.75, {"a": 2.0, "b": None, "c": 1.0}),)


def test_nothing_that_applies_is_no_total(group: Any) -> None:
    only_logged = WeightedSum([(constant(None, "a"), 1.0), (constant(9.0, "length"), 0.0)])
    assert only_logged.score([group(["x"])])[0][0] == Score(None, {"a": None, "length": 9.0})


def test_names_are_made_unique(group: Any) -> None:
    total = WeightedSum([(constant(1.0, "f"), 1), (constant(2.0, "f"), 1), (constant(3.0, "f"), 1)])
    assert total.score([group(["x"])])[0][0].parts == {"f": 1.0, "f_2": 2.0, "f_3": 3.0}


def test_a_failing_part_makes_the_sample_fail(group: Any) -> None:
    scores = WeightedSum([(constant(1.0, "a"), 1.0), (failing("f"), 1.0)]).score([group(["ok", "x"])])[0]
    assert scores[0] == Score(2.0, {"a": 1.0, "f": 1.0})
    assert scores[1].total is None
    assert scores[1].parts == {"a": 1.0, "f": None}
    assert scores[1].error is not None
    assert "f raised KeyError: 'no x'" in scores[1].error


def test_steps_are_weighted_and_in_order(group: Any) -> None:
    first, second = Steps(StepValue(3, 1.0), StepValue(8, 0.5)), Steps(StepValue(5, -2.0))
    score = WeightedSum([(first, 2.0), (second, 0.5)]).score([group(["x"])])[0][0]
    assert score.steps == (StepValue(3, 2.0), StepValue(5, -1.0), StepValue(8, 1.0))
    assert score.total == 2.0


def test_sums_within_sums_keep_their_parts(group: Any) -> None:
    inner = WeightedSum([(constant(1.0, "a"), 1.0), (constant(2.0, "b"), 1.0)], name="inner")
    score = WeightedSum([(inner, 0.5), (constant(1.0, "c"), 1.0)]).score([group(["x"])])[0][0]
    assert score == Score(2.5, {"inner": 3.0, "inner/a": 1.0, "inner/b": 2.0, "c": 1.0})


def test_votes_are_counted_on_the_first_reward_with_an_answer() -> None:
    total = WeightedSum([(constant(1.0, "a"), 1), (FunctionReward(ExactAnswer(answer_from="last_number")), 1)])
    assert total.has_answer
    assert total.answer("it is 1,000") == "1000"
    assert not WeightedSum([(constant(1.0, "a"), 1)]).has_answer


def test_weights_must_mean_something() -> None:
    with pytest.raises(RewardError, match="weight of reward 'a' is nan"):
        WeightedSum([(constant(1.0, "a"), float("nan"))])
    with pytest.raises(RewardError, match="other than 0"):
        WeightedSum([(constant(1.0, "a"), 0.0)])
    with pytest.raises(RewardError, match="other than 0"):
        WeightedSum([])


def test_failures_above_the_rate_stop_the_run_and_name_the_sample(group: Any) -> None:
    groups = [group(["a", "b"], id="first"), group(["c", "x"], id="second")]
    scored = [g.scored(s) for g, s in zip(groups, failing("f").score(groups), strict=True)]
    check_failures(scored, max_failure_rate=0.25)
    check_failures([], max_failure_rate=0.0)
    with pytest.raises(RewardError) as caught:
        check_failures(scored, max_failure_rate=0.2)
    message = str(caught.value)
    assert "failed for 1 of 4 completions" in message
    assert "prompt 'second', completion 1 ('x'): f raised KeyError: 'no x'" in message


def test_what_does_not_apply_is_no_failure(group: Any) -> None:
    g = group(["a"])
    check_failures([g.scored(constant(None, "n").score([g])[0])], max_failure_rate=0.0)
