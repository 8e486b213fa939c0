"""What the held-out measures show."""

from __future__ import annotations

import pytest

from histories import IMITATING, facts, found, group, measured, ramp, samples, steps, wave
from sharpen.report.diagnosis.facts import Facts
from sharpen.report.diagnosis.history import History

RISING = ramp(60, 0.4, 0.8, 0.02)
STEADY = wave(60, 0.5, 0.02)


def test_the_reward_rises_while_held_out_falls() -> None:
    """From 0.6 to 0.4, where the wider interval is 0.1 wide; the reward rises from 0.66 to 0.79."""
    at = {0: (0.5, 0.45, 0.55), 40: (0.6, 0.55, 0.65), 60: (0.4, 0.35, 0.45)}
    findings = found(History(facts(), measured("pass@1", at, steps(60, reward__mean=RISING))))
    # That it is below the start is not said as well.
    assert [*findings] == ["reward_rises_held_out_falls"]
    finding = findings["reward_rises_held_out_falls"]
    assert finding.severity == "problem"
    assert "Held-out pass@1 was 0.6 (0.55 to 0.65) at step 40 and is 0.4 (0.35 to 0.45) at step 60" in finding.evidence
    assert "in steps 38 to 42" in finding.evidence
    assert "in steps 56 to 60" in finding.evidence
    assert "Is it reward hacking?" in finding.advice
    assert "The model of step 40 was better" in finding.advice
    assert finding.steps == (40, 60)
    assert finding.metrics == ("held_out/pass@1", "reward/mean")


def test_a_fall_within_the_intervals_is_none() -> None:
    at = {0: (0.5, 0.4, 0.6), 40: (0.6, 0.5, 0.7), 60: (0.45, 0.35, 0.55)}
    assert found(History(facts(), measured("pass@1", at, steps(60, reward__mean=RISING)))) == {}


def test_both_rise() -> None:
    at = {0: (0.5, 0.45, 0.55), 40: (0.6, 0.55, 0.65), 60: (0.7, 0.65, 0.75)}
    assert found(History(facts(), measured("pass@1", at, steps(60, reward__mean=RISING)))) == {}


def test_intervals_of_a_few_equal_prompts_have_no_width_and_say_nothing() -> None:
    """Six prompts of which three are right, then none: a bootstrap over six zeros gives 0 to 0."""
    at = {0: (0.5, 0.167, 0.833), 60: (0.0, 0.0, 0.0)}
    assert found(History(facts(), measured("pass@1", at, steps(60, reward__mean=STEADY)))) == {}


def test_the_model_is_worse_than_before_training() -> None:
    at = {0: (0.5, 0.45, 0.55), 60: (0.3, 0.25, 0.35)}
    findings = found(History(facts(), measured("pass@1", at, steps(60, reward__mean=STEADY))))
    assert [*findings] == ["held_out_below_start"]
    assert "was 0.5 (0.45 to 0.55) at step 0 and is 0.3 (0.25 to 0.35) at step 60" in (
        findings["held_out_below_start"].evidence
    )


def test_a_loss_is_worse_where_it_is_higher() -> None:
    rows = steps(60, IMITATING, loss=wave(60, 1.0, 0.02))
    at = {0: (1.0, 0.9, 1.1), 60: (2.0, 1.9, 2.1)}
    assert "held_out_below_start" in found(History(facts("sft"), measured("loss", at, rows)))
    at = {0: (2.0, 1.9, 2.1), 60: (1.0, 0.9, 1.1)}
    assert found(History(facts("sft"), measured("loss", at, rows))) == {}


def test_the_model_has_been_better() -> None:
    at = {0: (0.3, 0.25, 0.35), 30: (0.6, 0.55, 0.65), 60: (0.45, 0.4, 0.5)}
    rows = measured("pass@1", at, steps(60, reward__mean=STEADY))
    findings = found(History(facts(), rows))
    assert [*findings] == ["held_out_past_its_best"]
    assert "Have `checkpoint.best` keep" in findings["held_out_past_its_best"].advice
    kept = facts(checkpoint={"best": "pass@1"})
    assert "which `checkpoint.best` keeps" in found(History(kept, rows))["held_out_past_its_best"].advice


def test_the_measure_is_that_of_checkpoint_best() -> None:
    """pass@1 is as it was, maj@2 has fallen."""
    at = {0: (0.5, 0.45, 0.55), 60: (0.5, 0.45, 0.55)}
    rows = measured("pass@1", at, steps(60, reward__mean=STEADY))
    rows = measured("maj@2", {0: (0.5, 0.45, 0.55), 60: (0.3, 0.25, 0.35)}, rows)
    assert "held_out_below_start" not in found(History(facts(), rows))
    assert "maj@2" in found(History(facts(checkpoint={"best": "maj@2"}), rows))["held_out_below_start"].evidence


def test_one_of_several_rewards_falls() -> None:
    """The total rises, on held-out prompts too; how often work is shown falls from 0.8 to 0.2."""
    rows = measured("pass@1", {0: (0.4, 0.35, 0.45), 60: (0.8, 0.75, 0.85)}, steps(60, reward__mean=RISING))
    rows = measured("reward/shows_work", {0: (0.8, 0.75, 0.85), 60: (0.2, 0.15, 0.25)}, rows)
    rows = measured("reward/math", {0: (0.4, 0.35, 0.45), 60: (0.8, 0.75, 0.85)}, rows)
    findings = found(History(facts(), rows))
    assert [*findings] == ["part_falls_while_reward_rises"]
    assert findings["part_falls_while_reward_rises"].title == "The reward rises at the cost of shows_work"


def test_a_penalty_that_falls_is_what_it_is_for() -> None:
    """Of a weight below 0; of which part that is, the samples say."""
    rows = measured("pass@1", {0: (0.4, 0.35, 0.45), 60: (0.8, 0.75, 0.85)}, steps(60, reward__mean=RISING))
    rows = measured("reward/repetition", {0: (0.8, 0.75, 0.85), 60: (0.2, 0.15, 0.25)}, rows)
    completions = [{"reward": 1.0, "parts": {"math": 1.0, "repetition": 0.0}}, {"reward": 0.0}]
    for weight, said in ((-1.0, []), (1.0, ["part_falls_while_reward_rises"])):
        recipe = Facts({**facts().tree, "reward": ["math", {"name": "repetition", "weight": weight}]})
        assert [*found(History(recipe, rows, samples(51, 10, [group("a", completions)])))] == said


UNMOVED = {
    0: (0.5, 0.4, 0.6),
    15: (0.52, 0.42, 0.62),
    30: (0.48, 0.38, 0.58),
    45: (0.51, 0.4, 0.6),
    60: (0.5, 0.4, 0.6),
}


def test_held_out_has_not_improved() -> None:
    finding = found(History(facts(), measured("pass@1", UNMOVED, steps(60, reward__mean=STEADY))))[
        "held_out_not_improved"
    ]
    assert finding.severity == "note"
    assert (
        "was 0.5 (0.4 to 0.6) at step 0, and 4 measurements later is 0.5 (0.4 to 0.6) at step 60." in finding.evidence
    )
    assert "A higher `optimizer.learning_rate`" in finding.advice


def test_held_out_has_not_improved_though_the_reward_rose() -> None:
    finding = found(History(facts(), measured("pass@1", UNMOVED, steps(60, reward__mean=RISING))))[
        "held_out_not_improved"
    ]
    assert finding.severity == "warning"
    assert "though the training reward rose" in finding.evidence
    assert "train on more of them" in finding.advice


@pytest.mark.parametrize(
    "at",
    [
        {step: value for step, value in UNMOVED.items() if step <= 45},  # not long enough
        {0: UNMOVED[0], 30: UNMOVED[30], 60: UNMOVED[60]},  # not often enough
        {**UNMOVED, 45: (0.56, 0.46, 0.66)},  # better by more than a quarter of the interval's width
        dict.fromkeys(UNMOVED, (0.99, 0.97, 1.0)),  # nothing left to gain
    ],
)
def test_when_it_cannot_be_said_that_held_out_has_not_improved(at: dict[int, tuple[float, float, float]]) -> None:
    assert found(History(facts(), measured("pass@1", at, steps(60, reward__mean=STEADY)))) == {}


PAIRED = {
    **IMITATING,
    "pair_accuracy": 0.51,
    "pair_margin": 0.0,
    # Of the grades of the given completions, which teach no spread, and of tokens that the policy did not draw.
    "reward/mean": 0.5,
    "reward/std": 0.5,
    "groups/zero_spread": 0.0,
    "reward/failed": 0.0,
    "kl": 2.4,
}


@pytest.mark.parametrize("method", ["sft", "dpo"])
def test_overfitting(method: str) -> None:
    rows = steps(60, IMITATING if method == "sft" else {**PAIRED, "pair_accuracy": 0.9}, loss=ramp(60, 2.0, 0.2))
    at = {0: (2.0, 1.9, 2.1), 20: (1.0, 0.9, 1.1), 60: (1.5, 1.4, 1.6)}
    findings = found(History(facts(method), measured("loss", at, rows)))
    assert [*findings] == ["overfitting"]
    finding = findings["overfitting"]
    assert "Held-out loss was 1 (0.9 to 1.1) at step 20 and is 1.5 (1.4 to 1.6) at step 60" in finding.evidence
    assert "Stop near step 20" in finding.advice
    at = {0: (2.0, 1.9, 2.1), 20: (1.0, 0.9, 1.1), 60: (1.05, 0.95, 1.15)}
    assert found(History(facts(method), measured("loss", at, rows))) == {}


def test_pairs_at_chance() -> None:
    """Four prompts a step: the last 50 steps have 200."""
    finding = found(History(facts("dpo"), steps(60, PAIRED)))["pairs_at_chance"]
    assert "in 51 % of the pairs of steps 11 to 60" in finding.evidence


def test_pairs_that_are_told_apart_or_too_few_to_say() -> None:
    dpo = facts("dpo")
    assert found(History(dpo, steps(60, PAIRED, pair_accuracy=0.7))) == {}
    assert found(History(dpo, steps(49, PAIRED))) == {}
    # What counts is that unseen pairs are told apart.
    rows = measured("pair_accuracy", {0: (0.5, 0.4, 0.6), 60: (0.62, 0.55, 0.7)}, steps(60, PAIRED))
    assert found(History(dpo, rows)) == {}


def test_a_run_without_held_out_rows_and_an_empty_one() -> None:
    assert found(History(facts(), steps(60, reward__mean=RISING))) == {}
    assert found(History(facts(), [])) == {}
    assert found(History(Facts({}), [{"step": 0, "held_out/pass@1": 0.5}])) == {}
