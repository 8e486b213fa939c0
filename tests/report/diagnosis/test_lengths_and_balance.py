"""Completions that are cut off or grow for nothing, and a part, a length or a prompt that decides alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from histories import facts, found, group, ramp, samples, steps, wave
from sharpen.report.diagnosis.facts import Facts
from sharpen.report.diagnosis.history import History
from sharpen.types import Group


@pytest.mark.parametrize(("truncated", "severity"), [(0.25, None), (0.4, "warning"), (0.7, "problem")])
def test_many_completions_are_cut_off(truncated: float, severity: str | None) -> None:
    finding = found(History(facts(), steps(10, truncated=truncated))).get("truncation_high")
    assert (finding and finding.severity) == severity
    if finding is not None:
        assert f"{100 * truncated:.0f} % of completions of steps 1 to 10 reached max_new_tokens (8)" in finding.evidence
        assert "`rollout.max_new_tokens`" in finding.advice


def test_most_conversations_run_out_of_turns() -> None:
    recipe = facts(rollout={"turns": "tiny_turns.py:turns", "max_turns": 3})
    finding = found(History(recipe, steps(10, turns__out_of_turns=0.6)))["out_of_turns"]
    assert "60 % of trajectories of steps 1 to 10 reached max_turns (3)" in finding.evidence
    assert found(History(recipe, steps(10, turns__out_of_turns=0.2))) == {}


def test_length_grows_without_gain() -> None:
    """The reward reaches 0.6 in steps 11 to 20, of 100 tokens; in the end it is 0.6, of 200."""
    rewards = [*ramp(10, 0.2, 0.5, 0.01), *wave(50, 0.6, 0.01)]
    lengths = [*[100.0] * 20, *ramp(30, 100.0, 200.0), *[200.0] * 10]
    finding = found(History(facts(), steps(60, reward__mean=rewards, length__mean=lengths)))[
        "length_grows_without_gain"
    ]
    assert "They are 200 tokens long on average in steps 51 to 60 and were 100 in steps 11 to 20" in finding.evidence
    assert finding.steps == (11, 60)


@pytest.mark.parametrize(
    ("rewards", "lengths"),
    [
        (ramp(60, 0.2, 0.8, 0.01), ramp(60, 100.0, 300.0)),  # with gain
        (wave(60, 0.5, 0.02), ramp(60, 100.0, 140.0)),  # a little
        (wave(60, 0.5, 0.02), ramp(60, 300.0, 100.0)),  # shorter
    ],
)
def test_lengths_that_are_in_order(rewards: list[float], lengths: list[float]) -> None:
    assert found(History(facts(), steps(60, reward__mean=rewards, length__mean=lengths))) == {}


def of_lengths(pairs: Sequence[tuple[int, float]]) -> list[Group]:
    """Four prompts with these (tokens, reward)."""
    return [group(f"p{at}", [{"tokens": tokens, "reward": reward} for tokens, reward in pairs]) for at in range(4)]


def test_the_reward_follows_the_length() -> None:
    """Reward = tokens / 40 exactly, so the correlation is 1; 10 steps of 4 groups of 5."""
    longer = of_lengths([(10, 0.25), (20, 0.5), (30, 0.75), (40, 1.0), (20, 0.5)])
    finding = found(History(facts(), steps(10), samples(1, 10, longer)))["length_decides_reward"]
    assert finding.title == "The reward follows the length: longer is better"
    assert "the correlation of reward and length is 1.00 (40 groups whose rewards differ" in finding.evidence
    assert finding.source == "samples"
    shorter = of_lengths([(10, 1.0), (20, 0.75), (30, 0.5), (40, 0.25), (20, 0.75)])
    title = found(History(facts(), steps(10), samples(1, 10, shorter)))["length_decides_reward"].title
    assert title == "The reward follows the length: shorter is better"


def test_a_reward_that_follows_the_length_a_little() -> None:
    """Deviations ±0.5 and ±10 tokens, of which two of eight disagree: correlation (6 − 2)/8 = 0.5."""
    pairs = [(10, 0.0), (30, 1.0), (10, 0.0), (30, 1.0), (10, 0.0), (30, 1.0), (30, 0.0), (10, 1.0)]
    assert found(History(facts(), steps(10), samples(1, 10, of_lengths(pairs)))) == {}


def test_lengths_that_differ_between_prompts_alone() -> None:
    """Long prompts have the better answers, and within a prompt length does not matter."""
    groups = [
        group(f"p{at}", [{"tokens": 10 * at + tokens, "reward": reward} for tokens in (1, 2) for reward in (0, at)])
        for at in range(1, 6)
    ]
    assert found(History(facts(), steps(10), samples(1, 10, groups))) == {}


def weighted(*weights: float) -> Facts:
    return Facts({**facts().tree, "reward": [{"name": f"r{at}", "weight": w} for at, w in enumerate(weights)]})


def of_parts(math: Sequence[float], form: Sequence[float], weights: tuple[float, float]) -> list[Group]:
    completions: list[dict[str, Any]] = [
        {"reward": weights[0] * m + weights[1] * f, "parts": {"math": m, "math/inner": 0.3, "form": f}}
        for m, f in zip(math, form, strict=True)
    ]
    return [group(f"p{at}", completions) for at in range(4)]


MATH, FORM = (0.0, 1.0, 0.0, 1.0, 0.0, 1.0), (0.0, 0.0, 1.0, 1.0, 0.0, 1.0)


def test_one_part_decides_alone() -> None:
    """Both vary; weight 10 against 0.01. By hand: the cross term is Σ m'f' = 0.5, and Σ m'² = Σ f'² = 1.5, of which
    math gets 10 · (10 · 1.5 + 0.01 · 0.5) of 150.1."""
    history = History(weighted(10.0, 0.01), steps(10), samples(1, 10, of_parts(MATH, FORM, (10.0, 0.01))))
    finding = found(history)["one_part_decides"]
    assert finding.title == "math dominates the reward"
    assert "100 % comes from math (weight 10)" in finding.evidence
    assert "form 0.0 % (weight 0.01) varies too" in finding.evidence
    assert finding.metrics == ("reward/math", "reward/form")


@pytest.mark.parametrize(
    ("weights", "form"),
    [
        ((1.0, 0.2), FORM),  # it counts
        ((10.0, 0.0), FORM),  # it is only logged
        ((10.0, 0.01), [1.0] * 6),  # it has been learned, and no longer varies
    ],
)
def test_parts_in_order(weights: tuple[float, float], form: Sequence[float]) -> None:
    history = History(weighted(*weights), steps(10), samples(1, 10, of_parts(MATH, form, weights)))
    assert found(history) == {}


def test_weights_that_cannot_be_told_apart() -> None:
    """A task's reward with parts of its own has no list of weights."""
    assert found(History(facts(), steps(10), samples(1, 10, of_parts(MATH, FORM, (10.0, 0.01))))) == {}


def of_sizes(sizes: Sequence[float]) -> list[Group]:
    """A prompt for each, whose four rewards are 0 or this."""
    return [group(f"p{at}", [{"reward": reward} for reward in (0.0, size, 0.0, size)]) for at, size in enumerate(sizes)]


def test_one_prompt_dominates() -> None:
    """Rewards of 0 or 10 for one prompt, of 0 or 1 for 24 others: 100 of 124 squares."""
    history = History(facts(), steps(5), samples(1, 5, of_sizes([1.0] * 24 + [10.0])))
    finding = found(history)["one_prompt_dominates"]
    assert "81 % comes from prompt p24, one of 25; it was drawn in 5 of 5 steps" in finding.evidence


@pytest.mark.parametrize("sizes", [[1.0] * 25, [1.0] * 24 + [3.0], [1.0] * 4 + [10.0]])
def test_prompts_in_order(sizes: Sequence[float]) -> None:
    """All alike; 9 of 33; and too few prompts to say."""
    assert found(History(facts(), steps(10), samples(1, 10, of_sizes(sizes)))) == {}
