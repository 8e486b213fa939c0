"""Where completions come from: what is drawn again, set aside and kept, by a policy that answers by script."""

from dataclasses import replace

import pytest
from hand_made import ScriptedCollector, completion, group

from sharpen.data.collate import collate
from sharpen.errors import RewardError
from sharpen.rollout.sources import Collector, CurrentPolicy, Demonstrations, Drawn, DynamicSampling, InitialPolicy
from sharpen.types import Completion, Group, Score, StepValue, WeightedReward

Answers = list[tuple[Completion, float | None]]


def answers(*rewards: float | None) -> Answers:
    return [(completion(3, i), reward) for i, reward in enumerate(rewards)]


def prompts(groups: list[Group]) -> list[str]:
    return [g.prompt.id for g in groups]


def test_the_current_policy_answers_each_prompt_of_the_step() -> None:
    collector = ScriptedCollector({"a": [answers(1, 0)], "b": [answers(1, 1)], "c": [answers(0, 0)]})
    drawn = CurrentPolicy(2).draw(collector, 2)
    assert prompts(drawn.groups) == ["a", "b"]
    assert drawn.set_aside == []
    assert collector.asked == [(["a", "b"], 2)]


def test_dynamic_sampling_draws_on_until_every_group_has_spread() -> None:
    """Round 1: a teaches, b is flat. Round 2: c is flat. Round 3: both teach, one more than is needed."""
    collector = ScriptedCollector(
        {
            "a": [answers(1, 0), answers(1, 0)],
            "b": [answers(1, 1), answers(0, 1)],
            "c": [answers(0, 0)],
            "d": [answers(0, 0)],
        }
    )
    drawn = DynamicSampling(CurrentPolicy(2), max_rounds=10).draw(collector, 2)
    assert collector.asked == [(["a", "b"], 2), (["c", "d"], 2), (["a", "b"], 2)]
    assert prompts(drawn.groups) == ["a", "a"]
    assert prompts(drawn.set_aside) == ["b", "c", "d", "b"]
    assert [s.total for s in drawn.set_aside[-1].scores] == [0, 1]


def test_a_group_whose_rewards_differ_by_rounding_or_are_missing_but_for_one_is_flat() -> None:
    collector = ScriptedCollector({"a": [answers(0.3, 0.1 + 0.2)], "b": [answers(1, None)], "c": [answers(1, 0.5)]})
    drawn = DynamicSampling(CurrentPolicy(2), max_rounds=1).draw(collector, 3)
    assert prompts(drawn.groups) == ["c"]
    assert prompts(drawn.set_aside) == ["a", "b"]


def test_a_group_whose_rewards_differ_by_more_than_rounding_teaches_however_little_that_is() -> None:
    """1000.1 − 1000 is 2·10⁻¹⁴ above 0.1: the rounding of 1000, but not that of 0.1."""
    difference = 1000.1 - 1000.0
    collector = ScriptedCollector(
        {"a": [answers(1e6, 1e6 + 1)], "b": [answers(0.0, 1e-6)], "c": [answers(difference, 0.1)]}
    )
    drawn = DynamicSampling(CurrentPolicy(2), max_rounds=1).draw(collector, 3)
    assert prompts(drawn.groups) == ["a", "b", "c"]
    weighted_rewards = (
        (WeightedReward(1.0, 1000.1), WeightedReward(-1.0, 1000.0)),
        (WeightedReward(1.0, 0.1), WeightedReward(-1.0, 0.0)),
    )
    teaching, _, last = drawn.groups
    totals = zip(last.scores, weighted_rewards, strict=True)
    summed = replace(last, scores=tuple(replace(score, weighted_rewards=of) for score, of in totals))

    class Summed(CurrentPolicy):
        def draw(self, collector: Collector, prompts: int) -> Drawn:
            return Drawn([summed, teaching])

    drawn = DynamicSampling(Summed(2), max_rounds=1).draw(ScriptedCollector({}), 2)
    assert (prompts(drawn.groups), prompts(drawn.set_aside)) == (["a"], ["c"])


def test_dynamic_sampling_gives_up_after_its_rounds_with_what_there_is() -> None:
    flat = [answers(1, 1)] * 2
    collector = ScriptedCollector({"a": [answers(1, 0), answers(0, 0)], "b": flat, "c": flat})
    drawn = DynamicSampling(CurrentPolicy(2), max_rounds=2).draw(collector, 3)
    assert len(collector.asked) == 2
    assert (prompts(drawn.groups), prompts(drawn.set_aside)) == (["a"], ["b", "c", "a", "b", "c"])


def test_with_rewards_of_steps_a_group_teaches_where_these_differ() -> None:
    """The totals are the least of the steps and equal; the steps are not. Then the other way round."""
    marked = [
        Group(a.prompt, a.completions, tuple(Score(t, steps=(StepValue(0, s),)) for t, s in values))
        for a, values in (
            (group("a", *answers(0, 0)), ((0.0, 1.0), (0.0, 0.0))),
            (group("b", *answers(1, 0)), ((1.0, 0.5), (0.0, 0.5))),
        )
    ]

    class Marked(CurrentPolicy):
        def draw(self, collector: Collector, prompts: int) -> Drawn:
            return Drawn(marked)

    drawn = DynamicSampling(Marked(2), max_rounds=1, differ="steps").draw(ScriptedCollector({}), 2)
    assert (prompts(drawn.groups), prompts(drawn.set_aside)) == (["a"], ["b"])
    drawn = DynamicSampling(Marked(2), max_rounds=1).draw(ScriptedCollector({}), 2)
    assert (prompts(drawn.groups), prompts(drawn.set_aside)) == (["b"], ["a"])


def test_without_a_single_group_that_teaches_the_step_is_of_those_that_do_not() -> None:
    flat = [answers(1, 1)] * 2
    collector = ScriptedCollector({"a": flat, "b": flat})
    drawn = DynamicSampling(CurrentPolicy(2), max_rounds=2).draw(collector, 2)
    assert (prompts(drawn.groups), prompts(drawn.set_aside)) == (["a", "b"], ["a", "b"])


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
    return [(group.prompt.id, c.token_ids) for group in collector.kept for c in group.completions]


def test_what_is_right_is_kept_once_and_at_most_k_times_per_prompt() -> None:
    assert kept(None, True) == [("a", (5,)), ("a", (7,)), ("a", (8, 9)), ("c", (5,))]
    assert kept(2, True) == [("a", (5,)), ("a", (7,)), ("c", (5,))]
    assert kept(2, False) == [("a", (5,)), ("a", (5,)), ("c", (5,))]
    assert kept(None, True, threshold=1.5) == [("a", (8, 9))]
    assert len(kept(None, False, threshold=0.5)) == 4 + 5 + 5


def test_only_the_first_prompts_are_answered_where_that_is_asked() -> None:
    collector = ScriptedCollector({"a": [answers(1)], "b": [answers(1)], "c": [answers(1)]})
    source = InitialPolicy(1, 2, 1.0, None, True)
    source.prepare(collector)
    assert collector.asked == [(["a", "b"], 1)]
    assert prompts(source.draw(collector, 5).groups) == ["a", "b"]


def test_a_policy_that_is_never_right_has_nothing_to_imitate() -> None:
    collector = ScriptedCollector({"a": [answers(0.25, None, -1)]})
    with pytest.raises(RewardError) as error:
        InitialPolicy(3, None, 0.5, None, True).prepare(collector)
    assert str(error.value) == (
        "none of the 3 completions of the initial policy has a reward of 0.5 or more (the best has 0.25), so there is "
        "nothing to imitate: lower method.threshold, or sample more completions with method.group_size"
    )


def test_data_is_taken_as_it_comes() -> None:
    collector = ScriptedCollector({})
    collector.kept = [replace(group("a", (completion(3), 1.0)), scores=(Score(1.0),))] * 3
    assert Demonstrations().draw(collector, 2).groups == collector.kept[:2]
    assert collate(collector.kept).rewards_B.tolist() == [1.0] * 3
