"""Rewards in which there is nothing to learn from."""

from __future__ import annotations

from typing import Any

import pytest

from histories import USUAL, facts, found, group, samples, steps
from sharpen.report.diagnosis.history import History

FLAT: dict[str, float] = {**USUAL, "reward/std": 0.0, "groups/zero_spread": 1.0, "truncated": 0.0}


def flat(reward: float, count: int = 5, **columns: Any) -> History:
    return History(facts(), steps(count, FLAT, reward__mean=reward, **columns))


def test_all_rewards_0_of_completions_that_are_cut_off() -> None:
    # Four prompts with four completions each, in five steps: 80.
    finding = found(flat(0.0, truncated=0.92, length__mean=8.0))["all_rewards_zero"]
    assert finding.severity == "problem"
    assert finding.title == "Every reward is 0"
    assert "all 80 completions of steps 1 to 5" in finding.evidence
    assert "92 % of completions reached max_new_tokens (8)" in finding.evidence
    assert "`rollout.max_new_tokens`" in finding.advice
    assert finding.steps == (1, 5)


def test_all_rewards_0_of_completions_that_end_by_themselves() -> None:
    finding = found(flat(0.0, truncated=0.25, length__mean=6.0))["all_rewards_zero"]
    assert "25 % of completions reached max_new_tokens; the others end by themselves" in finding.evidence
    assert "6 tokens long on average" in finding.evidence
    assert "`method.group_size`" in finding.advice
    assert "max_new_tokens" not in finding.advice


def test_all_rewards_0_of_completions_that_cannot_be_judged() -> None:
    refused = [{"reward": 0.0, "refused": "no number\nin it"}] * 3 + [{"reward": 0.0, "refused": "too long"}]
    history = History(facts(), flat(0.0).rows, samples(1, 5, [group("a", refused)]))
    finding = found(history)["all_rewards_zero"]
    assert "100 % of completions could not be judged, by their own doing; most often: no number in it." in (
        finding.evidence
    )


def test_all_rewards_0_of_a_policy_that_had_some() -> None:
    """At the earlier mean of 0.5, 40 of the 80 completions would have been right."""
    rows = [*steps(3), *steps(5, FLAT, begin=4, reward__mean=0.0)]
    finding = found(History(facts(), rows))["all_rewards_zero"]
    assert "In the steps before, the mean was 0.5: the policy has lost what it could do" in finding.evidence
    assert "a checkpoint before step 4" in finding.advice
    assert "`optimizer.learning_rate`" in finding.advice


def test_rare_rewards_that_come_by_luck_were_not_lost() -> None:
    """At a mean of 0.1, eight right completions of 80 are expected, which may well be none."""
    rows = [*steps(3, reward__mean=0.1), *steps(5, FLAT, begin=4, reward__mean=0.0)]
    assert "has lost" not in found(History(facts(), rows))["all_rewards_zero"].evidence


def test_rewards_of_minus_1_are_as_those_of_0() -> None:
    assert found(flat(-1.0))["all_rewards_zero"].title == "Every reward is -1"


@pytest.mark.parametrize(("count", "said"), [(4, False), (5, True)])
def test_five_steps_are_enough(count: int, said: bool) -> None:
    assert ("all_rewards_zero" in found(flat(0.0, count))) == said


def test_a_single_reward_in_the_last_steps_is_enough_not_to_say_it() -> None:
    rows = [*steps(8, FLAT, reward__mean=0.0), *steps(1, begin=9)]
    assert found(History(facts(), rows)) == {}


def test_the_steps_are_those_since_rewards_are_equal() -> None:
    rows = [*steps(3, reward__mean=0.01), *steps(7, FLAT, begin=4, reward__mean=0.0)]
    assert found(History(facts(), rows))["all_rewards_zero"].steps == (4, 10)


def test_all_rewards_at_the_maximum_from_the_start() -> None:
    finding = found(flat(1.0))["all_rewards_highest"]
    assert finding.severity == "warning"
    assert "All 80 completions of steps 1 to 5 got 1, from the first step on" in finding.evidence


def test_all_prompts_solved_in_the_end() -> None:
    rows = [*steps(20), *steps(5, FLAT, begin=21, reward__mean=1.0)]
    finding = found(History(facts(), rows))["all_rewards_highest"]
    assert (finding.severity, finding.title) == ("note", "All prompts are solved")


def test_the_maximum_is_the_sum_of_the_weights() -> None:
    rewards = [{"name": "math", "weight": 2.0}, {"name": "length", "weight": -1.0}, "format"]
    recipe = {**facts().tree, "reward": rewards}
    rows = steps(5, FLAT, reward__mean=3.0)
    assert [*found(History(type(facts())(recipe), rows))] == ["all_rewards_highest"]
    assert [*found(History(facts(), rows))] == ["all_rewards_equal"]


def test_all_rewards_equal_between_0_and_the_maximum() -> None:
    finding = found(flat(0.5))["all_rewards_equal"]
    assert finding.severity == "problem"
    assert "All 80 completions of steps 1 to 5 got 0.5" in finding.evidence


def test_no_group_has_spread_while_prompts_differ() -> None:
    rows = steps(5, groups__zero_spread=1.0)
    finding = found(History(facts(), rows))["no_group_has_spread"]
    assert "the mean over prompts is 0.5" in finding.evidence
    # With a critic or a whitened reward, completions of other prompts are compared with.
    for method in ("ppo", "reinforce_plus_plus", "online_rft"):
        assert "no_group_has_spread" not in found(History(facts(method), rows)), method


@pytest.mark.parametrize(("reward", "hardness"), [(0.05, "hard"), (0.7, "easy or too hard")])
def test_few_groups_have_spread(reward: float, hardness: str) -> None:
    rows = steps(10, groups__zero_spread=0.95, reward__mean=reward)
    finding = found(History(facts(), rows))["few_groups_have_spread"]
    assert finding.title == f"Most prompts are too {hardness} to learn from"
    assert "95 % of prompts had completions of equal reward" in finding.evidence
    assert "`method.dynamic_sampling`" in finding.advice


def test_prompts_that_are_learned_need_no_spread() -> None:
    rows = steps(10, groups__zero_spread=0.95, reward__mean=0.97)
    assert found(History(facts(), rows)) == {}


def test_no_completion_has_a_reward() -> None:
    rows = steps(5, reward__mean=None, reward__std=None, groups__zero_spread=None)
    finding = found(History(facts(), rows))["no_rewards"]
    assert "Of the 80 completions of steps 1 to 5 none was scored" in finding.evidence
    assert "the reward applies to none" in finding.evidence


def test_a_method_that_imitates_has_no_rewards_and_needs_none() -> None:
    rows = steps(5, {"loss": 1.0, "grad_norm": 1.0, "updates/applied": 1, "updates/skipped": 0})
    assert found(History(facts("sft"), rows)) == {}


def test_nothing_is_applied_because_no_completion_is_good_enough() -> None:
    rows = steps(5, updates__applied=0, updates__skipped=1)
    finding = found(History(facts("online_rft"), rows))["nothing_applied"]
    assert "no completion reached method.threshold (0.25); the mean reward is 0.5" in finding.evidence
    assert "`method.threshold`" in finding.advice


def test_where_equal_rewards_explain_it_that_alone_is_said() -> None:
    history = flat(0.0, updates__applied=0, updates__skipped=2)
    assert [*found(history)] == ["all_rewards_zero"]


def test_steps_of_which_some_apply_nothing_are_usual() -> None:
    rows = steps(10, updates__applied=[0, 0, 0, 0, 1] * 2, updates__skipped=[2, 2, 2, 2, 1] * 2)
    assert found(History(facts(), rows)) == {}
