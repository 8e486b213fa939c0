"""docs/diagnosis.md lists every finding with the thresholds of the code, and advice names settings that there are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from histories import facts
from sharpen.methods import METHODS
from sharpen.report.diagnosis import (
    comparing,
    critic,
    dominance,
    held_out,
    history,
    lengths,
    on_disk,
    optimization,
    policy,
    rewards,
    sampler,
    spread,
)
from sharpen.report.diagnosis.diagnose import ILLNESSES

PAGE = (Path(__file__).parents[3] / "docs" / "diagnosis.md").read_text()
ROWS = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE))
SETTING = re.compile(r"`((?:method|rollout|optimizer|training|evaluation|checkpoint|data|model)\.[a-z_.]+)`")


def percent(share: float) -> str:
    return f"{100 * share:g} %"


THRESHOLDS: dict[str, tuple[str, ...]] = {
    "no_rewards": (f"last {spread.FLAT_STEPS} steps",),
    "all_rewards_zero": (
        f"for {spread.FLAT_STEPS} steps",
        f"{spread.EXPECTED} or more",
        percent(spread.CUT_OFF),
        percent(spread.REFUSED),
    ),
    "no_group_has_spread": (f"for {spread.FLAT_STEPS} steps",),
    "few_groups_have_spread": (
        f"is {percent(spread.SPARSE)} or more over {spread.SPARSE_STEPS} steps",
        f"below {percent(spread.SOLVED)}",
    ),
    "nothing_applied": (f"for {spread.FLAT_STEPS} steps",),
    "rewards_fail": (f"{percent(rewards.FAILING)} or more over {rewards.STEPS} steps",),
    "rewards_time_out": (f"{percent(rewards.LATE)} or more over {rewards.STEPS} steps",),
    "completions_refused": (percent(rewards.REFUSED),),
    "environment_fails": (f"{percent(rewards.FAILING)} or more over {rewards.STEPS} steps",),
    "reward_fell": (f"over {rewards.FALL_STEPS} steps", f"by {comparing.ERRORS + 1:g} standard errors"),
    "held_out_not_improved": (
        f"after {held_out.UNMOVED_STEPS} steps and {held_out.UNMOVED_MEASUREMENTS} measurements",
        percent(held_out.SATURATED),
    ),
    "pairs_at_chance": (
        f"after {held_out.CHANCE_STEPS} steps",
        f"over {held_out.CHANCE_STEPS // 2} steps and {held_out.PAIRS} pairs",
        percent(held_out.CHANCE),
    ),
    "entropy_collapsed": (
        f"after {3 * policy.STEPS} steps",
        f"first {policy.START} steps for {policy.STEPS}",
        f"below {percent(policy.SOLVED)}",
    ),
    "entropy_explodes": (f"{policy.GROWN:g} times", f"first {policy.START} steps or more for {policy.STEPS}"),
    "kl_runs_away": (f"over {policy.STEPS} steps", f"{policy.KL_NATS:g} nat per", f"{policy.TARGET:g} times"),
    "kl_old_runs_away": (f"over {policy.STEPS} steps", f"{policy.TARGET:g} times"),
    "clip_fraction_high": (
        f"is {percent(policy.CLIPPED)} or more over {policy.STEPS} steps",
        f"below {policy.SEQUENCE_RANGE:g}",
        percent(policy.SEQUENCES_CLIPPED),
    ),
    "sampler_and_trainer_disagree": (
        f"over {sampler.STEPS} steps is {sampler.FLOAT32_NATS:g} nats",
        f"otherwise {sampler.NATS:g}",
        f"{sampler.WITH_LAG:g} times that",
    ),
    "ratio_noise_above_clip_range": (f"over {sampler.STEPS} steps",),
    "gradients_spike": (
        f"more than {optimization.SPIKE:g} times the median of the {optimization.BEFORE} steps before",
        f"{optimization.SEVERAL} or more of the last {optimization.LOOKED_AT} steps",
        f"once {optimization.HUGE:g} times",
        f"first {optimization.FIRST} steps",
    ),
    "loss_rises": (f"{optimization.RISEN:g} times", f"for {optimization.LOSS_STEPS}"),
    "critic_explains_nothing": (f"after {critic.AT_LEAST} steps", f"over {critic.STEPS} is 0"),
    "truncation_high": (
        f"from {percent(lengths.MOSTLY_CUT_OFF)} on",
        f"is {percent(lengths.CUT_OFF)} or more over {lengths.STEPS} steps",
    ),
    "out_of_turns": (f"{percent(lengths.OUT_OF_TURNS)} or more over {lengths.STEPS} steps",),
    "length_grows_without_gain": (f"over {lengths.STEPS} steps is {lengths.GROWN:g} times",),
    "length_decides_reward": (f"{lengths.CORRELATED:g} or more",),
    "one_part_decides": (percent(dominance.DECIDES), f"at most {percent(dominance.DROWNED)}"),
    "one_prompt_dominates": (
        f"one of {dominance.PROMPTS} prompts",
        percent(dominance.OF_ONE_PROMPT),
        f"in {dominance.ITS_STEPS} steps",
    ),
}


def test_the_page_lists_every_finding_and_no_other() -> None:
    assert sorted(ROWS) == sorted(illness.__name__ for illness in ILLNESSES)


@pytest.mark.parametrize("name", THRESHOLDS)
def test_the_page_has_the_thresholds_of_the_code(name: str) -> None:
    for text in THRESHOLDS[name]:
        assert text in ROWS[name], f"{name}: the page lacks {text!r}"


def test_what_the_page_says_of_all_of_a_section() -> None:
    page = " ".join(PAGE.split())
    assert f"means over {held_out.COMPARED} steps differ by {comparing.ERRORS:g} standard errors" in page
    assert f"the last {on_disk.STEPS} steps that have any, where these have {lengths.TRAJECTORIES} completions" in page
    assert (lengths.TRAJECTORIES, lengths.GROUPS) == (dominance.TRAJECTORIES, dominance.GROUPS)
    assert f"{lengths.GROUPS} groups whose rewards differ" in page
    *others, last = (f"`{name}`" for name in history.MEASURES)
    assert f"the first there is of {', '.join(others)} and {last}" in page


@pytest.mark.parametrize("illness", ILLNESSES, ids=lambda illness: str(illness.__name__))
def test_each_says_in_a_sentence_when_a_run_has_it(illness: object) -> None:
    assert illness.__doc__
    assert illness.__doc__.strip().endswith(".")


def test_settings_that_the_page_and_the_advice_name_exist() -> None:
    """In the recipe of some method."""
    recipes = [facts(name) for name in METHODS]
    sources = Path(spread.__file__).parent.glob("*.py")
    for text in (PAGE, *(source.read_text() for source in sources)):
        for name in re.findall(
            r"`((?:method|rollout|optimizer|training|evaluation|checkpoint|data|model)\.[a-z_.]+)`", text
        ):
            assert any(recipe.has(name) for recipe in recipes), name
