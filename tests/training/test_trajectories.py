"""Trajectories of several samples: loss and gradient of every method are the formulas over t = 1 … |o_i|."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from sharpen.data.collate import collate
from sharpen.errors import RecipeError
from sharpen.methods import GSPO
from sharpen.models.forward import MicrobatchLimits
from sharpen.models.packing.microbatches import cut_trajectories
from sharpen.models.policy import Policy
from sharpen.models.scorer import Scorer, normalise_scores
from sharpen.types import Sample, Trajectory
from trajectory_steps import assert_same, copied, expected, float64, learn, models_of
from trajectory_variants import BOUND, CUT, CUTS, VARIANTS, assert_the_formula, formula, groups_of, method_of

__all__ = ["float64"]


@pytest.mark.parametrize("name", [name for name in VARIANTS if name not in CUT])
def test_a_step_is_the_formula_over_the_drawn_tokens(name: str) -> None:
    assert_the_formula(name, CUTS[list(VARIANTS).index(name) % len(CUTS)])


@pytest.mark.parametrize("name", CUT)
def test_any_cut_gives_the_gradient_of_the_formula(name: str) -> None:
    for limits in CUTS:
        assert_the_formula(name, limits)


@pytest.mark.parametrize("name", CUT)
def test_padded_samples_give_the_gradient_of_the_formula(name: str) -> None:
    assert not models_of("gpt2").reference.plain
    for tokens in (1, 40):
        assert_the_formula(name, MicrobatchLimits(tokens, True), "gpt2")


@pytest.mark.parametrize("name", ["grpo rollout", "dapo rollout", "gspo rollout", "gspo token rollout", "ppo lambda"])
def test_the_examples_have_terms_on_both_sides_of_the_clip(name: str) -> None:
    report = assert_the_formula(name, CUTS[0]).report
    assert report is not None
    assert 0.05 < report.metrics["clip_fraction"] < 0.95


def test_the_examples_have_trajectories_that_micro_batches_cut() -> None:
    """GSPO's ratio of these comes from a pass of its own."""
    batch = collate(groups_of("gspo rollout"))
    cut = [cut_trajectories(batch, limits.tokens_per_microbatch).sum() for limits in CUTS]
    assert cut == [0, 7, 2, 0]


def test_a_loss_of_whole_trajectories_is_not_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is computed before the error: GSPO without what it says of whole trajectories."""
    objective = replace(GSPO().objectives()[0], whole=None)
    monkeypatch.setattr(GSPO, "objectives", lambda self: (objective,))
    computed: list[object] = []
    monkeypatch.setattr(Policy, "outputs", lambda *arguments: computed.append(arguments))
    said = (
        "a trajectory is too long for a micro-batch of 1 tokens, and its loss needs all of it: raise "
        "training.tokens_per_microbatch, or give the objective what it needs of a whole trajectory (`whole`)"
    )
    with pytest.raises(RecipeError, match=re.escape(said)):
        learn(method_of("gspo"), groups_of("gspo"), CUTS[1], models_of())
    assert computed == []


@pytest.mark.parametrize("name", ["sft", "dpo", "process_reward_model", "ppo lambda", "grpo process", "gspo rollout"])
def test_the_order_of_trajectories_and_groups_does_not_matter(name: str) -> None:
    groups = [replace(group, trajectories=group.trajectories[::-1]) for group in groups_of(name)[::-1]]
    assert_same(learn(method_of(name), groups, CUTS[2], models_of()), formula(name), BOUND)


def test_a_reply_in_a_later_prefix_tells_right_trajectories_apart() -> None:
    method, [group, *others] = method_of("online_rft"), groups_of("online_rft")
    first, twin, *rest = group.trajectories
    assert [s.token_ids for s in first.samples] == [s.token_ids for s in twin.samples]
    other = replace(twin.samples[1], prefix_ids=others[0].trajectories[2].samples[1].prefix_ids)
    twin = replace(twin, samples=(twin.samples[0], other))
    groups = [replace(group, trajectories=(first, twin, *rest)), *others]
    wanted = expected(method, groups, models_of())
    assert_same(learn(method, groups, CUTS[0], models_of()), wanted, BOUND)
    assert wanted.losses["policy"] != formula("online_rft").losses["policy"]


@pytest.mark.parametrize("name", ["grpo rollout", "ppo td", "gspo rollout"])
def test_a_trajectory_that_failed_before_a_token_was_drawn_changes_nothing(name: str) -> None:
    def nothing(trajectory: Trajectory) -> Trajectory:
        return replace(trajectory, samples=(Sample(trajectory.samples[0].prefix_ids, (), ()),))

    groups = [
        replace(
            group,
            trajectories=tuple(
                nothing(t) if t.score is not None and t.score.total is None else t for t in group.trajectories
            ),
        )
        for group in groups_of(name)
    ]
    assert groups != groups_of(name)
    assert_same(learn(method_of(name), groups, CUTS[0], models_of()), formula(name), BOUND)


@pytest.mark.parametrize("limits", CUTS)
def test_scores_are_centred_at_the_last_drawn_token_of_each_trajectory(limits: MicrobatchLimits) -> None:
    scorer = copied(models_of().trained["outcome_reward_model"])
    assert isinstance(scorer, Scorer)
    shown = groups_of("sft")
    scores = models_of().said("outcome_reward_model", groups=shown).scores
    mean = sum(row[-1].item() for row in scores) / len(scores)
    assert normalise_scores(scorer, collate(shown), limits) == pytest.approx(mean, rel=1e-10)
