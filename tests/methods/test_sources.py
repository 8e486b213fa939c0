"""Sources with a scripted policy: what they sample again, set aside and keep."""

from dataclasses import replace

import pytest
from hand_made import ScriptedCollector, completion, group

from sharpen.data.collate import collate
from sharpen.errors import RewardError
from sharpen.rollout.sources import Collected, Collector, CurrentPolicy, Demonstrations, DynamicSampling, InitialPolicy
from sharpen.types import Group, Score, StepValue, Trajectory, WeightedReward

Answers = list[tuple[Trajectory, float | None]]


def answers(*rewards: float | None) -> Answers:
    return [(completion(3, i), reward) for i, reward in enumerate(rewards)]


def prompts(groups: list[Group]) -> list[str]:
    return [g.prompt.id for g in groups]


def test_the_current_policy_answers_each_prompt_of_the_step() -> None:
    collector = ScriptedCollector({"a": [answers(1, 0)], "b": [answers(1, 1)], "c": [answers(0, 0)]})
    collected = CurrentPolicy(2).collect(collector, 2)
    assert prompts(collected.groups) == ["a", "b"]
    assert collected.set_aside == []
    assert collector.asked == [(["a", "b"], 2)]


def test_dynamic_sampling_continues_until_every_group_has_spread() -> None:
    """Round 1: a has spread, b is flat. Round 2: c and d are flat. Round 3: a and b have spread, but one is enough."""
    collector = ScriptedCollector(
        {
            "a": [answers(1, 0), answers(1, 0)],
            "b": [answers(1, 1), answers(0, 1)],
            "c": [answers(0, 0)],
            "d": [answers(0, 0)],
        }
    )
    collected = DynamicSampling(CurrentPolicy(2), max_rounds=10).collect(collector, 2)
    assert collector.asked == [(["a", "b"], 2), (["c", "d"], 2), (["a", "b"], 2)]
    assert prompts(collected.groups) == ["a", "a"]
    assert prompts(collected.set_aside) == ["b", "c", "d", "b"]
    assert [s.total for s in collected.set_aside[-1].scores] == [0, 1]


def test_a_group_is_flat_if_its_rewards_differ_by_rounding_or_only_one_has_a_value() -> None:
    collector = ScriptedCollector({"a": [answers(0.3, 0.1 + 0.2)], "b": [answers(1, None)], "c": [answers(1, 0.5)]})
    collected = DynamicSampling(CurrentPolicy(2), max_rounds=1).collect(collector, 3)
    assert prompts(collected.groups) == ["c"]
    assert prompts(collected.set_aside) == ["a", "b"]


def test_a_group_has_spread_if_its_rewards_differ_by_more_than_rounding_however_little() -> None:
    """1000.1 − 1000 is 2·10⁻¹⁴ above 0.1: the rounding of 1000, but not that of 0.1."""
    difference = 1000.1 - 1000.0
    collector = ScriptedCollector(
        {"a": [answers(1e6, 1e6 + 1)], "b": [answers(0.0, 1e-6)], "c": [answers(difference, 0.1)]}
    )
    collected = DynamicSampling(CurrentPolicy(2), max_rounds=1).collect(collector, 3)
    assert prompts(collected.groups) == ["a", "b", "c"]
    weighted_rewards = (
        (WeightedReward(1.0, 1000.1), WeightedReward(-1.0, 1000.0)),
        (WeightedReward(1.0, 0.1), WeightedReward(-1.0, 0.0)),
    )
    first, _, last = collected.groups
    totals = zip(last.scores, weighted_rewards, strict=True)
    summed = last.scored([replace(score, weighted_rewards=of) for score, of in totals])

    class Summed(CurrentPolicy):
        def collect(self, collector: Collector, prompts: int) -> Collected:
            return Collected([summed, first])

    collected = DynamicSampling(Summed(2), max_rounds=1).collect(ScriptedCollector({}), 2)
    assert (prompts(collected.groups), prompts(collected.set_aside)) == (["a"], ["c"])


def test_dynamic_sampling_stops_after_max_rounds_with_the_groups_found() -> None:
    flat = [answers(1, 1)] * 2
    collector = ScriptedCollector({"a": [answers(1, 0), answers(0, 0)], "b": flat, "c": flat})
    collected = DynamicSampling(CurrentPolicy(2), max_rounds=2).collect(collector, 3)
    assert len(collector.asked) == 2
    assert (prompts(collected.groups), prompts(collected.set_aside)) == (["a"], ["b", "c", "a", "b", "c"])


def test_with_step_rewards_a_group_has_spread_if_these_differ() -> None:
    """In one group the totals are equal and the step rewards are not; in the other it is the other way round."""
    marked = [
        a.scored([Score(t, steps=(StepValue(0, s),)) for t, s in values])
        for a, values in (
            (group("a", *answers(0, 0)), ((0.0, 1.0), (0.0, 0.0))),
            (group("b", *answers(1, 0)), ((1.0, 0.5), (0.0, 0.5))),
        )
    ]

    class Marked(CurrentPolicy):
        def collect(self, collector: Collector, prompts: int) -> Collected:
            return Collected(marked)

    collected = DynamicSampling(Marked(2), max_rounds=1, differ="steps").collect(ScriptedCollector({}), 2)
    assert (prompts(collected.groups), prompts(collected.set_aside)) == (["a"], ["b"])
    collected = DynamicSampling(Marked(2), max_rounds=1).collect(ScriptedCollector({}), 2)
    assert (prompts(collected.groups), prompts(collected.set_aside)) == (["b"], ["a"])


def test_if_no_group_has_spread_the_step_uses_flat_groups() -> None:
    flat = [answers(1, 1)] * 2
    collector = ScriptedCollector({"a": flat, "b": flat})
    collected = DynamicSampling(CurrentPolicy(2), max_rounds=2).collect(collector, 2)
    assert (prompts(collected.groups), prompts(collected.set_aside)) == (["a", "b"], ["a", "b"])


# The initial policy, filtered

FIVE: Answers = [
    (completion(5), 1.0),
    (completion(5), 1.0),
    (completion(6), 0.4),
    (completion(7), 1.0),
    (completion(8, 9), 2.0),
]


def kept(at_most: int | None, unique: bool, threshold: float = 1.0) -> list[tuple[str, tuple[int, ...]]]:
    wrong = [(c, 0.5) for c, _ in FIVE]
    collector = ScriptedCollector({"a": [FIVE], "b": [wrong], "c": [[*wrong[:4], (completion(5), 1.0)]]})
    source = InitialPolicy(5, None, threshold, at_most, unique)
    source.prepare(collector)
    assert collector.asked == [(["a", "b", "c"], 5)]
    assert all(not group.scores for group in collector.kept)
    return [(group.prompt.id, c.token_ids) for group in collector.kept for c in group.trajectories]


def test_right_completions_are_kept_once_and_at_most_k_per_prompt() -> None:
    assert kept(None, True) == [("a", (5,)), ("a", (7,)), ("a", (8, 9)), ("c", (5,))]
    assert kept(2, True) == [("a", (5,)), ("a", (7,)), ("c", (5,))]
    assert kept(2, False) == [("a", (5,)), ("a", (5,)), ("c", (5,))]
    assert kept(None, True, threshold=1.5) == [("a", (8, 9))]
    assert len(kept(None, False, threshold=0.5)) == 4 + 5 + 5


def test_the_number_of_prompts_can_be_limited() -> None:
    collector = ScriptedCollector({"a": [answers(1)], "b": [answers(1)], "c": [answers(1)]})
    source = InitialPolicy(1, 2, 1.0, None, True)
    source.prepare(collector)
    assert collector.asked == [(["a", "b"], 1)]
    assert prompts(source.collect(collector, 5).groups) == ["a", "b"]


def test_a_policy_that_is_never_right_is_an_error() -> None:
    collector = ScriptedCollector({"a": [answers(0.25, None, -1)]})
    with pytest.raises(RewardError) as error:
        InitialPolicy(3, None, 0.5, None, True).prepare(collector)
    assert str(error.value) == (
        "none of the 3 completions of the initial policy has a reward of 0.5 or more (the best has 0.25), so there is "
        "nothing to imitate: lower method.threshold, or sample more completions with method.group_size"
    )


def test_data_is_taken_in_order() -> None:
    collector = ScriptedCollector({})
    collector.kept = [group("a", (completion(3), 1.0)).scored([Score(1.0)])] * 3
    assert Demonstrations().collect(collector, 2).groups == collector.kept[:2]
    assert collate(collector.kept).rewards_E.tolist() == [1.0] * 3
