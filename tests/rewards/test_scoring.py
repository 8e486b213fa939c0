from typing import Any

import pytest

from sharpen.errors import RewardError
from sharpen.rewards import CallSettings, FunctionReward, WeightedSum, check_failures, score_groups


def fail(completion: str) -> float:
    if "x" in completion:
        raise KeyError("no x")
    return 1.0


def failing(name: str) -> FunctionReward:
    return FunctionReward(fail, name)


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
    check_failures([g.scored(FunctionReward(lambda completion: None).score([g])[0])], max_failure_rate=0.0)


def test_failures_that_took_too_long_are_told_apart(group: Any) -> None:
    def judge(completion: str) -> float:
        if completion == "slow":
            raise TimeoutError("no answer")
        return fail(completion)

    groups = [group(["a", "x", "slow", "b"])]
    with pytest.raises(RewardError, match=r"failed for 2 of 4 completions \(1 of them took too long\)"):
        score_groups(FunctionReward(judge), groups, max_failure_rate=0.1)
    (scored,), _ = score_groups(FunctionReward(judge), groups, max_failure_rate=0.5)
    assert [score.total for score in scored.scores] == [1.0, None, None, 1.0]


def test_the_time_of_the_whole_and_of_each_part(group: Any) -> None:
    one = FunctionReward(fail, call=CallSettings(at_once=2))
    (scored,), seconds = score_groups(one, [group(["a", "b"])], max_failure_rate=0.0)
    assert [score.total for score in scored.scores] == [1.0, 1.0]
    assert list(seconds) == ["reward"]
    several = WeightedSum([(failing("f"), 1.0), (failing("f"), 0.5), (FunctionReward(len), 1.0)])
    _, seconds = score_groups(several, [group(["a", "b"])], max_failure_rate=0.0)
    assert list(seconds) == ["reward", "reward/f", "reward/f_2", "reward/len"]
    assert 0 < max(list(seconds.values())[1:]) <= seconds["reward"]
