"""Rewards that fail, take too long, or fall."""

from __future__ import annotations

import pytest

from histories import facts, found, group, samples, steps, wave
from sharpen.report.diagnosis.history import History


def test_rewards_that_fail() -> None:
    """A tenth fails, in one step 12 %: more than half of the 20 % at which the run stops."""
    raised = [{"error": "ValueError: bad"}] * 2 + [{"error": "KeyError"}] + [{"reward": 1.0}, {"reward": 0.0}] * 8
    rows = steps(3, reward__failed=[0.08, 0.12, 0.1], reward__timed_out=0.05)
    recipe = facts(rollout={"max_reward_failures": 0.2})
    finding = found(History(recipe, rows, samples(1, 3, [group("a", raised)])))["rewards_fail"]
    assert finding.severity == "problem"
    assert "10 % of completions of steps 1 to 3 have no reward because computing it failed" in finding.evidence
    assert "(5.0 % took too long), most often with: ValueError: bad." in finding.evidence
    assert "above 20 % of a step the run stops" in finding.evidence


@pytest.mark.parametrize(("failed", "severity"), [(0.001, None), (0.02, "warning"), (0.06, "problem")])
def test_how_grave_failures_are(failed: float, severity: str | None) -> None:
    """The run stops above 10 %."""
    finding = found(History(facts(), steps(3, reward__failed=failed))).get("rewards_fail")
    assert (finding and finding.severity) == severity


def test_completions_that_take_too_long_to_judge() -> None:
    """Of 8 % that took too long, 1 % failed; the others got 0."""
    rows = steps(3, reward__timed_out=0.08, reward__failed=0.01)
    assert "7.0 % of completions of steps 1 to 3 got 0" in found(History(facts(), rows))["rewards_time_out"].evidence
    assert "rewards_time_out" not in found(History(facts(), steps(3, reward__timed_out=0.02)))


def test_completions_that_cannot_be_judged() -> None:
    refused = [{"reward": 0.0, "refused": "no code block"}] * 6 + [{"reward": 1.0}] * 2
    finding = found(History(facts(), steps(3), samples(1, 3, [group("a", refused)])))["completions_refused"]
    assert "75 % of the 24 completions of steps 1 to 3" in finding.evidence
    assert "most often: no code block." in finding.evidence
    some = [{"reward": 0.0, "refused": "no code block"}] * 3 + [{"reward": 1.0}] * 5
    assert found(History(facts(), steps(3), samples(1, 3, [group("a", some)]))) == {}


def test_an_environment_that_fails() -> None:
    """Its failures count as failed rewards too, and are said once."""
    rows = steps(3, environment__failed=0.04, reward__failed=0.04)
    findings = found(History(facts(), rows))
    assert [*findings] == ["environment_fails"]
    assert "4.0 % of trajectories of steps 1 to 3 ended because rollout.turns failed" in (
        findings["environment_fails"].evidence
    )
    assert found(History(facts(), steps(3, environment__failed=0.0))) == {}


def test_a_reward_that_falls() -> None:
    """From 0.6 to 0.3, where the standard deviation within a step is 0.5: by 0.6 of it."""
    rewards = [*wave(20, 0.6, 0.02), *wave(20, 0.3, 0.02)]
    finding = found(History(facts(), steps(40, reward__mean=rewards)))["reward_fell"]
    assert finding.severity == "problem"
    assert "Its mean was 0.6" in finding.evidence
    assert "is 0.3" in finding.evidence
    assert "a checkpoint before step 31" in finding.advice
    assert finding.steps[1] == 40


@pytest.mark.parametrize(
    "rewards",
    [
        [*wave(20, 0.6, 0.02), *wave(20, 0.4, 0.02)],  # by 0.4 of the standard deviation
        [0.9, 0.1] * 15 + [0.1, 0.6] * 5,  # as much as it goes up and down anyway
        wave(40, 0.5, 0.3),
    ],
)
def test_a_reward_that_goes_up_and_down(rewards: list[float]) -> None:
    assert "reward_fell" not in found(History(facts(), steps(40, reward__mean=rewards)))
