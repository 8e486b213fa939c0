"""How the policy explores and moves, how two computations of it agree, gradients, losses and the critic."""

from __future__ import annotations

import pytest

from histories import IMITATING, facts, found, ramp, steps, wave
from sharpen.report.diagnosis.history import History

COLLAPSING = [*ramp(20, 0.3, 0.02), *[0.02] * 20]


def test_the_entropy_collapses() -> None:
    """From a median of 0.27 in the first five steps to 0.02, which is less than a tenth."""
    rows = steps(40, entropy=COLLAPSING, reward__mean=wave(40, 0.4, 0.02))
    finding = found(History(facts(), rows))["entropy_collapsed"]
    assert "It was 0.271 nats per token in the first steps and is 0.02 in steps 31 to 40" in finding.evidence
    assert "the reward stays at 0.399" in finding.evidence
    for setting in ("`method.eps_high`", "`method.entropy_coef`", "`optimizer.learning_rate`"):
        assert setting in finding.advice
    # RLOO clips nothing.
    assert "eps_high" not in found(History(facts("rloo"), rows))["entropy_collapsed"].advice


@pytest.mark.parametrize(
    ("entropy", "reward"),
    [
        (COLLAPSING, wave(40, 0.95, 0.01)),  # solved
        (COLLAPSING, ramp(40, 0.2, 0.8)),  # still learning
        (ramp(40, 0.3, 0.05), wave(40, 0.4, 0.02)),  # a sixth
    ],
)
def test_an_entropy_that_falls_as_it_should(entropy: list[float], reward: list[float]) -> None:
    assert found(History(facts(), steps(40, entropy=entropy, reward__mean=reward))) == {}


def test_a_method_that_imitates_may_lower_the_entropy() -> None:
    assert found(History(facts("sft"), steps(40, IMITATING, entropy=COLLAPSING, loss=ramp(40, 2.0, 0.5)))) == {}


def test_the_policy_writes_at_random() -> None:
    rows = steps(40, entropy=ramp(40, 0.3, 3.0), reward__mean=ramp(40, 0.4, 0.3))
    finding = found(History(facts(), rows))["entropy_explodes"]
    assert finding.severity == "problem"
    assert "while the reward went from 0.388 to 0.312" in finding.evidence
    better = steps(40, entropy=ramp(40, 0.3, 3.0), reward__mean=ramp(40, 0.4, 0.5))
    assert found(History(facts(), better)) == {}


def test_kl_runs_away() -> None:
    finding = found(History(facts(), steps(40, kl=ramp(40, 0.0, 2.0), beta=0.04)))["kl_runs_away"]
    # The median of the last ten of 0, 2/39, …, 2.
    assert "1.77 nats per token away from the reference in steps 31 to 40 at a penalty of beta 0.04" in finding.evidence
    assert "`method.kl.target`" in finding.advice


def test_a_single_token_far_from_the_reference_is_no_run_away() -> None:
    kl = [0.01] * 40
    kl[35] = 5000.0
    assert found(History(facts(), steps(40, kl=kl))) == {}


@pytest.mark.parametrize(("kl", "said"), [(0.039, False), (0.041, True)])
def test_kl_beyond_its_target(kl: float, said: bool) -> None:
    recipe = facts(method={"kl": {"target": 0.01}})
    assert ("kl_runs_away" in found(History(recipe, steps(10, kl=kl)))) == said


@pytest.mark.parametrize(("kl_old", "said"), [(0.039, False), (0.041, True)])
def test_kl_to_the_old_policy_beyond_its_target(kl_old: float, said: bool) -> None:
    recipe = facts("ppo", method={"form": "kl", "old_kl_target": 0.01})
    rows = steps(10, kl_old=kl_old, old_kl=1.0)
    assert ("kl_old_runs_away" in found(History(recipe, rows))) == said


@pytest.mark.parametrize(("method", "allowed"), [("grpo", 0.2), ("gspo", 0.75), ("ppo", 0.2), ("cispo", 0.2)])
def test_much_is_clipped(method: str, allowed: float) -> None:
    recipe = facts(method)
    finding = found(History(recipe, steps(10, clip_fraction=allowed + 0.01)))["clip_fraction_high"]
    assert f"{100 * allowed + 1:.0f} % of tokens of steps 1 to 10 have no gradient" in finding.evidence
    assert "`method.minibatches`" in finding.advice
    assert found(History(recipe, steps(10, clip_fraction=allowed - 0.01))) == {}


def test_the_advice_names_settings_that_the_recipe_has() -> None:
    reinforce = facts("reinforce", method={"clip": 0.2})
    advice = found(History(reinforce, steps(10, clip_fraction=0.5)))["clip_fraction_high"].advice
    assert "`method.clip`" in advice
    assert "eps_" not in advice


@pytest.mark.parametrize(
    ("rollout", "mismatch", "severity"),
    [
        ({}, 0.009, None),
        ({}, 0.02, "warning"),
        ({}, 0.2, "problem"),
        # What was learned since they were drawn is in it.
        ({"lag": 1}, 0.02, None),
        ({"lag": 1}, 0.06, "warning"),
    ],
)
def test_sampler_and_trainer_disagree(rollout: dict[str, int], mismatch: float, severity: str | None) -> None:
    """In float32 by 0.01 nats or more; with a lag by five times as much."""
    recipe = facts(rollout=rollout, method={"tis_cap": 2.0} if rollout else {})
    finding = found(History(recipe, steps(5, mismatch__mean=mismatch, mismatch__max=1.0))).get(
        "sampler_and_trainer_disagree"
    )
    assert (finding and finding.severity) == severity


def test_bfloat16_may_disagree_more() -> None:
    recipe = facts(model={"compute_dtype": "bfloat16"})
    assert found(History(recipe, steps(5, mismatch__mean=0.02))) == {}
    finding = found(History(recipe, steps(5, mismatch__mean=0.06)))["sampler_and_trainer_disagree"]
    assert "differ by 0.06 nats on average in steps 1 to 5" in finding.evidence
    assert "`model.compute_dtype`" in finding.advice


def test_rounding_above_the_clip_range() -> None:
    """GSPO clips at 0.0003, GRPO at 0.2."""
    rows = steps(5, ratio__noise=0.001)
    finding = found(History(facts("gspo"), rows))["ratio_noise_above_clip_range"]
    assert "differ by 0.001 in the log of a completion's ratio in steps 1 to 5, and the clip range is 0.0003" in (
        finding.evidence
    )
    assert found(History(facts(), rows)) == {}


def test_one_huge_spike_of_the_gradient() -> None:
    norms = wave(60, 0.5, 0.1)
    norms[40] = 60.0
    finding = found(History(facts(), steps(60, grad_norm=norms)))["gradients_spike"]
    assert "At step 41 its norm was 60, 1" in finding.evidence
    assert finding.steps == (41, 41)
    norms[40] = 20.0
    assert found(History(facts(), steps(60, grad_norm=norms))) == {}


def test_several_spikes_of_the_gradient() -> None:
    norms = [0.5] * 60
    norms[30], norms[40], norms[50] = 6.0, 7.0, 8.0
    finding = found(History(facts(), steps(60, grad_norm=norms)))["gradients_spike"]
    assert "At step 51 its norm was 8, 16 times the median of the 20 steps before; 3 of the last 60 steps" in (
        finding.evidence
    )
    assert finding.steps == (31, 51)


@pytest.mark.parametrize(
    "norms",
    [
        [10.0] * 5 + ramp(15, 8.0, 0.05) + [0.05] * 20 + [6.0] + [0.05] * 19,  # below what it began with
        [0.0, 0.0, 0.0, 0.5] * 15,  # most steps have no gradient
        ([0.5] * 19 + [4.0]) * 3,  # eight times
    ],
)
def test_gradients_that_do_not_spike(norms: list[float]) -> None:
    assert "gradients_spike" not in found(History(facts(), steps(60, grad_norm=norms)))


def test_the_training_loss_rises() -> None:
    rows = steps(40, IMITATING, loss=[1.0, *wave(39, 3.0, 0.1)])
    finding = found(History(facts("sft"), rows))["loss_rises"]
    assert finding.severity == "problem"
    assert "It was 1 at step 1, before the first update, and is 3" in finding.evidence
    assert "in steps 31 to 40" in finding.evidence
    assert found(History(facts("sft"), steps(40, IMITATING, loss=wave(40, 1.0, 0.3)))) == {}
    # A surrogate's value says nothing.
    assert found(History(facts(), steps(40, loss=[*wave(10, 0.0, 0.001), *wave(30, 1.0, 0.001)]))) == {}


def test_the_critic_explains_nothing() -> None:
    rows = steps(30, value__explained_variance=wave(30, -0.2, 0.1))
    finding = found(History(facts("ppo"), rows))["critic_explains_nothing"]
    assert "in steps 11 to 30" in finding.evidence
    assert "`method.critic_learning_rate_ratio`" in finding.advice
    shared = found(History(facts("ppo", method={"critic": "shared"}), rows))["critic_explains_nothing"]
    assert "`method.value_coef`" in shared.advice


def test_a_critic_that_learns_or_has_just_begun() -> None:
    ppo = facts("ppo")
    assert found(History(ppo, steps(30, value__explained_variance=ramp(30, -0.5, 0.6)))) == {}
    assert found(History(ppo, steps(29, value__explained_variance=-0.2))) == {}
