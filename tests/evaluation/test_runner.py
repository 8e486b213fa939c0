"""Evaluation with an engine whose completions are known."""

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sharpen.data.tasks import resolve_task
from sharpen.errors import RewardError
from sharpen.evaluation.runner import evaluate, stream_seed
from sharpen.rewards.by_source import BySource
from sharpen.rewards.combine import WeightedSum
from sharpen.rewards.function import FunctionReward
from sharpen.rewards.task import TaskReward
from sharpen.rollout.engine import EngineCounters, FinishedRequest, Request, Sampling, Snapshot
from sharpen.types import Finish, Group, Prompt, Score

SAMPLING = Sampling(max_new_tokens=5)


class Known:
    """Answers the i-th prompt with the texts given i-th; a text's length in tokens is its length in characters."""

    version = 0
    context_length = 100
    counters = EngineCounters()

    def __init__(self, texts: dict[str, list[str]]) -> None:
        self.texts = [list(answers) for answers in texts.values()]
        self.asked: list[Request] = []
        self.unfinished: list[FinishedRequest] = []

    def add(self, requests: Sequence[Request]) -> None:
        self.asked += requests
        for request, text in zip(requests, self.texts.pop(0), strict=True):
            finish = Finish.LENGTH if len(text) >= 5 else Finish.EOS
            ids, logprobs = (3,) * len(text), (0.0,) * len(text)
            self.unfinished.append(FinishedRequest(request, ids, logprobs, finish, text, self.version))

    def next_finished(self, at_least: int = 1) -> list[FinishedRequest]:
        """The last one first."""
        finished, self.unfinished = self.unfinished[::-1], []
        return finished

    def cancel(self, draw_ids: Collection[int]) -> None:
        raise AssertionError("nothing fails here")

    def release(self, draw_ids: Collection[int]) -> None: ...

    def load(self, snapshot: Snapshot) -> None: ...

    def close(self) -> None: ...


def prompts(**answers: str) -> list[Prompt]:
    return [
        Prompt(name, (number,), name, {"prompt": name, "answer": answer})
        for number, (name, answer) in enumerate(answers.items())
    ]


ARITHMETIC = TaskReward(resolve_task("arithmetic"))
TEXTS = {
    # Right: 3 of 4. Blocks of two: (7, 7) → 1 and (7, 8) → a tie, 1/2.
    "a": ["#7", "1#7", "#7", "#8"],
    # Right: 1 of 4. Blocks: (5, 5) → 0 and (no answer, 4) → 1.
    "b": ["#5", "#5", "x", "#4"],
    # Right: none. The third is cut off.
    "c": ["", "9", "#12345", "#1"],
}
PROMPTS = prompts(a="7", b="4", c="2")


def measured(texts: dict[str, list[str]] = TEXTS, **settings: Any) -> Any:
    arguments = {"n": 4, "ks": (1, 2, 4), "sampling": SAMPLING, "seed": 5, **settings}
    return evaluate(Known(texts), PROMPTS, arguments.pop("reward", ARITHMETIC), **arguments)


def test_every_measure_worked_out() -> None:
    found = {name: estimate.mean for name, estimate in measured().measures.items()}
    assert found == pytest.approx(
        {
            "pass@1": (3 / 4 + 1 / 4 + 0) / 3,
            # 1 − C(1,2)/C(4,2) = 1; 1 − C(3,2)/C(4,2) = 1/2.
            "pass@2": (1 + 1 / 2 + 0) / 3,
            "pass@4": (1 + 1 + 0) / 3,
            "maj@2": (3 / 4 + 1 / 2 + 0) / 3,
            # Of four: 7 three times; 5 twice and 4 once; 12345 and 1, neither right.
            "maj@4": (1 + 0 + 0) / 3,
            "reward": (3 / 4 + 1 / 4 + 0) / 3,
            "length": ((2 + 3 + 2 + 2) / 4 + (2 + 2 + 1 + 2) / 4 + (0 + 1 + 6 + 2) / 4) / 3,
            "truncated": (1 / 4) / 3,
        }
    )


def test_the_groups_and_which_completions_are_right() -> None:
    evaluation = measured()
    assert evaluation.right == (
        (True, True, True, False),
        (False, False, False, True),
        (False, False, False, False),
    )
    assert [[c.text for c in g.trajectories] for g in evaluation.groups] == list(TEXTS.values())
    assert [g.prompt.id for g in evaluation.groups] == ["a", "b", "c"]


def test_the_interval_is_the_bootstrap_of_the_mean_over_prompts() -> None:
    """Of 3/4, 1/4 and 0, each of the 27 draws of three: the 2.5 and 97.5 percentiles lie at their ends."""
    estimate = measured().measures["pass@1"]
    means = sorted(sum(x) / 3 for x in np.stack(np.meshgrid(*[[0.75, 0.25, 0.0]] * 3), -1).reshape(-1, 3))
    # 0, 0 and 0 has a chance of 1/27 > 2.5 %, and so has 3/4 three times.
    assert (estimate.low, estimate.high) == (means[0], means[-1]) == (0.0, 0.75)


def test_completions_are_requested_once_with_distinct_draw_ids_and_a_separate_seed() -> None:
    engine = Known(TEXTS)
    evaluate(engine, PROMPTS, ARITHMETIC, n=4, ks=(1,), sampling=SAMPLING, seed=5)
    assert [request.token_ids for request in engine.asked] == [(0,)] * 4 + [(1,)] * 4 + [(2,)] * 4
    assert [request.draw_id for request in engine.asked] == list(range(12))
    assert all(request.sampling is SAMPLING for request in engine.asked)
    assert {request.seed for request in engine.asked} == {stream_seed(5, "evaluation")}
    assert len({5, 6, stream_seed(5, "evaluation"), stream_seed(6, "evaluation"), stream_seed(5, "pass@1")}) == 5


def test_without_answers_there_is_no_majority() -> None:
    def right(completion: str, answer: str) -> float:
        return float(completion == f"#{answer}")

    found = measured(reward=FunctionReward(right)).measures
    assert [name for name in found if "@" in name] == ["pass@1", "pass@2", "pass@4"]
    assert found["pass@1"].mean == pytest.approx((2 / 4 + 1 / 4) / 3)


def test_the_threshold_decides_which_are_right() -> None:
    def share(completion: str) -> float:
        return len(completion) / 4

    for threshold, right in ((0.5, [4, 3, 2]), (0.75, [1, 0, 1]), (0.2501, [4, 3, 2])):
        found = measured(reward=FunctionReward(share), threshold=threshold, ks=(1,))
        assert [sum(row) for row in found.right] == right
        assert found.measures["pass@1"].mean == pytest.approx(sum(right) / 12)


def test_several_rewards_are_measured_separately_and_together() -> None:
    def short(completion: str) -> float:
        return float(len(completion) < 3)

    found = measured(reward=WeightedSum([(ARITHMETIC, 1.0), (FunctionReward(short), 0.5)]), ks=(1,)).measures
    assert found["reward/arithmetic"].mean == pytest.approx(4 / 12)
    assert found["reward/short"].mean == pytest.approx((3 + 4 + 3) / 12)
    assert found["reward"].mean == pytest.approx(4 / 12 + 0.5 * 10 / 12)
    # With 1 right and 1.5 right and short, the threshold of 1 is reached by the right ones only.
    assert found["pass@1"].mean == pytest.approx(4 / 12)


def test_where_a_reward_does_not_apply_a_completion_is_not_right_and_not_in_the_mean() -> None:
    def sometimes(completion: str) -> float | None:
        return None if completion in ("#5", "x", "#4") else float(completion.startswith("#"))

    found = measured(reward=FunctionReward(sometimes), ks=(1,))
    assert found.right[1] == (False,) * 4
    assert found.measures["pass@1"].mean == pytest.approx((3 / 4 + 0 + 2 / 4) / 3)
    assert found.measures["reward"].mean == pytest.approx((3 / 4 + 2 / 4) / 2)


def test_a_reward_that_applies_nowhere_or_fails_is_an_error() -> None:
    with pytest.raises(RewardError, match="'nothing' applies to none of the 3 held-out prompts"):
        measured(reward=FunctionReward(lambda completion: None, name="nothing"))

    def falls(completion: str) -> float:
        raise KeyError(completion)

    with pytest.raises(
        RewardError, match=r"failed for 12 of 12.*prompt 'a', completion 0 \('#7'\).*falls raised KeyError"
    ):
        measured(reward=FunctionReward(falls))


class Half(FunctionReward):
    def score(self, groups: Sequence[Group]) -> list[tuple[Score, ...]]:
        return [tuple(Score(None, error="broken") if i == 0 else Score(1.0) for i in range(4)) for _ in groups]


def test_below_the_rate_a_failed_sample_counts_as_not_right() -> None:
    reward = Half(lambda completion: 1.0, name="half")
    found = measured(reward=reward, max_reward_failures=0.25, ks=(1,))
    assert found.measures["pass@1"].mean == pytest.approx(3 / 4)
    assert found.measures["reward"].mean == 1.0
    with pytest.raises(RewardError, match="failed for 3 of 12"):
        measured(reward=reward, max_reward_failures=0.24, ks=(1,))


def test_a_single_prompt_has_no_interval() -> None:
    found = evaluate(Known(TEXTS), PROMPTS[:1], ARITHMETIC, n=4, ks=(1,), sampling=SAMPLING, seed=0)
    assert math.isnan(found.measures["pass@1"].low)
    assert found.to_json()["pass@1"] == {"mean": 0.75, "low": None, "high": None}
    assert measured().to_json()["pass@1"]["high"] == 0.75


def by_source(**rewards: FunctionReward | TaskReward) -> Any:
    """Prompts a and c are of one source, b of another."""
    of = {"a": "first", "b": "second", "c": "first"}
    sourced = [replace(prompt, source=of[prompt.id]) for prompt in PROMPTS]
    return evaluate(Known(TEXTS), sourced, BySource(rewards), n=4, ks=(1, 2), sampling=SAMPLING, seed=5)


def test_measures_of_each_source_and_of_the_prompts_of_all() -> None:
    found = {name: estimate.mean for name, estimate in by_source(first=ARITHMETIC, second=ARITHMETIC).measures.items()}
    whole = {name: estimate.mean for name, estimate in measured(ks=(1, 2)).measures.items()}
    assert {name: value for name, value in found.items() if "/" not in name} == pytest.approx(whole)
    assert {name: value for name, value in found.items() if "/" in name} == pytest.approx(
        {
            "first/pass@1": (3 / 4 + 0) / 2,
            "first/pass@2": (1 + 0) / 2,
            "first/maj@2": (3 / 4 + 0) / 2,
            "first/reward": (3 / 4 + 0) / 2,
            "first/length": ((2 + 3 + 2 + 2) / 4 + (0 + 1 + 6 + 2) / 4) / 2,
            "first/truncated": (1 / 4) / 2,
            "second/pass@1": 1 / 4,
            "second/pass@2": 1 / 2,
            "second/maj@2": 1 / 2,
            "second/reward": 1 / 4,
            "second/length": (2 + 2 + 1 + 2) / 4,
            "second/truncated": 0,
        }
    )


def test_each_source_has_its_own_reward_votes_and_parts() -> None:
    def written(completion: str) -> float:
        return len(completion) / 4

    evaluation = by_source(first=FunctionReward(written), second=ARITHMETIC)
    found = {name: estimate.mean for name, estimate in evaluation.measures.items()}
    # 1 where four characters or more were written: of a and c, only "#12345" of c.
    assert evaluation.right == ((False,) * 4, (False, False, False, True), (False, False, True, False))
    assert found["pass@1"] == pytest.approx((0 + 1 / 4 + 1 / 4) / 3)
    assert (found["first/pass@1"], found["second/pass@1"]) == (1 / 8, 1 / 4)
    # Votes only where the reward has answers, and over all prompts only if all have.
    assert [name for name in found if "maj@" in name] == ["second/maj@2"]
    # Each part over the prompts that it applies to.
    assert found["reward/written"] == found["first/reward"] == pytest.approx(((9 / 4) / 4 + (9 / 4) / 4) / 2)
    assert found["reward/arithmetic"] == found["second/reward"] == 1 / 4
    assert found["reward"] == pytest.approx((9 / 16 + 1 / 4 + 9 / 16) / 3)


def test_a_source_whose_reward_never_applies_is_named() -> None:
    def never(completion: str) -> None:
        return None

    with pytest.raises(RewardError, match="'never' applies to none of the 1 held-out prompts of source second"):
        by_source(first=ARITHMETIC, second=FunctionReward(never))
