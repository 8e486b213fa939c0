"""What is recorded of each token is what the slow formulas say of it, however the work is cut, packed and shared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate, chain

import pytest

from oracles import grpo
from oracles import trajectories as oracle
from sharpen.methods import resolve_method
from sharpen.models.forward import MicrobatchLimits
from sharpen.types import Group, Score
from thread_ranks import on_each
from trajectory_steps import Done, float64, learn, models_of
from trajectory_variants import CUT, CUTS, VARIANTS, formula, groups_of, learned, method_of

__all__ = ["float64"]

SCORERS = ("reward_model", "process_reward_model")
POLICIES = [name for name in VARIANTS if name.split()[0] not in SCORERS]


def of_drawn(done: Done, column: str, groups: Sequence[Group]) -> list[list[float]]:
    """A column's numbers at the drawn tokens, NaN where it has none."""
    assert done.report is not None
    assert done.report.token_rows is not None
    found = []
    trajectories = [t for group in groups for t in group.trajectories]
    for trajectory, row in zip(trajectories, done.report.token_rows, strict=True):
        start = list(accumulate((len(sample.token_ids) for sample in trajectory.samples), initial=0))
        values = row.get(column, [math.nan] * start[-1])
        assert len(values) == start[-1]
        found.append([float(values[start[sample] + position]) for sample, position in oracle.drawn(trajectory)])
    return found


def assert_the_slopes(name: str, done: Done, architecture: str = "llama") -> None:
    """coefficient × weight is −∂loss/∂log π by the formula, at every drawn token."""
    groups = groups_of(name, architecture)
    coefficient, weight = of_drawn(done, "coefficient", groups), of_drawn(done, "weight", groups)
    wanted = formula(name, architecture).slopes
    assert any(slope for row in wanted for slope in row)
    for i, row in enumerate(wanted):
        # Tokens that the method narrows away, such as those of a truncated completion, have no weight at all.
        found = [0.0 if math.isnan(w) else c * w for c, w in zip(coefficient[i], weight[i], strict=True)]
        assert found == pytest.approx(row, rel=1e-9, abs=1e-12), f"trajectory {i}"


@pytest.mark.parametrize("name", POLICIES)
def test_the_coefficient_is_the_slope_of_the_formula_over_the_weight(name: str) -> None:
    assert_the_slopes(name, learned(name, CUTS[0], record_tokens=True))


@pytest.mark.parametrize("limits", CUTS[1:])
@pytest.mark.parametrize("name", [name for name in CUT if name in POLICIES])
def test_any_cut_gives_the_same_coefficient(name: str, limits: MicrobatchLimits) -> None:
    assert_the_slopes(name, learned(name, limits, record_tokens=True))


@pytest.mark.parametrize("name", ["grpo k3", "dpo", "gspo rollout", "ppo shared"])
def test_padded_samples_give_the_same_coefficient(name: str) -> None:
    assert_the_slopes(name, learned(name, CUTS[2], "gpt2", record_tokens=True), "gpt2")


@pytest.mark.parametrize("name", [name for name in CUT if name in POLICIES])
def test_every_rank_has_the_tokens_of_all(name: str) -> None:
    for done in on_each(3, lambda rank: learned(name, CUTS[2], ranks=rank, record_tokens=True)):
        assert_the_slopes(name, done)


# What the papers say the coefficient is, of the columns beside it.


def columns(name: str, *names: str) -> list[tuple[float, ...]]:
    """The columns of every token that has a coefficient other than 0."""
    done, groups = learned(name, CUTS[0], record_tokens=True), groups_of(name)
    found = [[x for row in of_drawn(done, column, groups) for x in row] for column in ("coefficient", *names)]
    rows = [row for row in zip(*found, strict=True) if not math.isnan(row[0]) and row[0] != 0]
    assert len(rows) > 5
    return rows


def test_grpo_with_a_penalty() -> None:
    """live·ρ·Â + β(r − 1)."""
    settings = {"eps_low": 0.2, "eps_high": 0.2, "beta": 0.3}
    for found, *of_token in columns("grpo k3", "logprob", "old_logprob", "ref_logprob", "advantage"):
        assert found == pytest.approx(grpo.gradient_coefficient(*of_token, **settings), rel=1e-9)


@pytest.mark.parametrize("name", ["grpo rollout", "dr_grpo", "dapo rollout", "ppo lambda", "reinforce clipped"])
def test_the_clipped_surrogate_without_a_penalty(name: str) -> None:
    """live·ρ·Â."""
    method = method_of(name)
    low = getattr(method, "eps_low", None) or method.clip  # type: ignore[attr-defined]
    high = getattr(method, "eps_high", None) or method.clip  # type: ignore[attr-defined]
    clipped = 0
    done, groups = learned(name, CUTS[0], record_tokens=True), groups_of(name)
    names = ("coefficient", "logprob", "old_logprob", "advantage", "clipped", "ratio")
    for row in zip(*(chain(*of_drawn(done, column, groups)) for column in names), strict=True):
        found, logprob, old, advantage, is_clipped, ratio = row
        if math.isnan(logprob):
            # Not computed: all advantages of the trajectory are 0, or it has no reward.
            assert found == 0 or math.isnan(advantage)
            continue
        assert ratio == pytest.approx(math.exp(logprob - old), rel=1e-9)
        live = grpo.is_live(logprob, old, advantage, low, high)
        assert bool(is_clipped) == (not live)
        assert found == pytest.approx(live * ratio * advantage, rel=1e-9)
        clipped += not live
    assert clipped or name == "dr_grpo"


@pytest.mark.parametrize("name", ["reinforce", "rloo", "reinforce none"])
def test_the_plain_policy_gradient(name: str) -> None:
    """Â."""
    for found, advantage in columns(name, "advantage"):
        assert found == pytest.approx(advantage, rel=1e-9)


def test_cispo() -> None:
    """min(ρ, 1 + ε_high)·Â, also where the ratio is clipped, less what is below 1 − ε_low."""
    method = method_of("cispo rollout")
    for found, ratio, advantage in columns("cispo rollout", "ratio", "advantage"):
        weight = max(1 - method.eps_low, min(1 + method.eps_high, ratio))  # type: ignore[attr-defined]
        assert found == pytest.approx(weight * advantage, rel=1e-9)


def test_gspo_gives_each_token_the_ratio_of_its_trajectory() -> None:
    """live·s·Â + β(r − 1) for a weight of 1/(P·G·|o|); s is exp of the mean log-ratio."""
    done, groups = learned("gspo rollout", CUTS[0], record_tokens=True), groups_of("gspo rollout")
    names = ("coefficient", "weight", "advantage", "logprob", "old_logprob", "ref_logprob", "clipped")
    every = [of_drawn(done, name, groups) for name in names]
    sizes = [sum(bool(oracle.drawn(t)) for t in group.trajectories) for group in groups for _ in group.trajectories]
    live = clipped = 0
    for number, rows in enumerate(zip(*every, strict=True)):
        length = len(rows[0])
        if not length:
            continue
        log_s = sum(now - old for now, old in zip(rows[3], rows[4], strict=True)) / length
        for found, weight, advantage, now, _, ref, is_clipped in zip(*rows, strict=True):
            assert weight == pytest.approx(1 / (len(groups) * sizes[number] * length), rel=1e-9)
            surrogate = 0.0 if is_clipped else math.exp(log_s) * advantage
            assert found == pytest.approx(surrogate + 0.3 * (math.exp(ref - now) - 1), rel=1e-9)
            live, clipped = live + (not is_clipped), clipped + bool(is_clipped)
    assert live
    assert clipped


@pytest.mark.parametrize("name", ["sft", "sft per sequence", "rft", "online_rft"])
def test_imitation_is_1(name: str) -> None:
    assert all(found == pytest.approx(1.0, rel=1e-12) for (found,) in columns(name))


def test_dpo() -> None:
    """β σ(−u) summed over the pairs that a completion wins, less those that it loses; over the number of pairs."""
    method, groups = method_of("dpo"), groups_of("dpo")
    done = learned("dpo", CUTS[0], record_tokens=True)
    found, now, ref = (of_drawn(done, name, groups) for name in ("coefficient", "logprob", "ref_logprob"))
    beta: float = method.beta  # type: ignore[attr-defined]
    number = 0
    for group in groups:
        grades = [None if t.score is None else t.score.total for t in group.trajectories]
        rows = range(number, number + len(grades))
        h = [sum(now[i]) - sum(ref[i]) for i in rows]
        pairs = [
            (w, l)
            for w, better in enumerate(grades)
            for l, worse in enumerate(grades)
            if better is not None and worse is not None and better > worse
        ]
        wanted = [0.0] * len(grades)
        for w, l in pairs:
            slope = beta / (1 + math.exp(beta * (h[w] - h[l]))) / len(pairs)
            wanted[w] += slope
            wanted[l] -= slope
        for i, slope in zip(rows, wanted, strict=True):
            assert found[i] == pytest.approx([slope] * len(found[i]), rel=1e-9)
        number += len(grades)


def test_the_ratio_is_that_of_the_last_pass_and_all_else_of_the_first() -> None:
    groups, models = groups_of("grpo minibatches"), models_of()
    done = learned("grpo minibatches", CUTS[2], record_tokens=True)
    before, later = (
        [[x.item() for x in row] for row in models.said("policy", later=late, groups=groups).logprobs]
        for late in (False, True)
    )
    ratio, logprob, old = (of_drawn(done, name, groups) for name in ("ratio", "logprob", "old_logprob"))
    of_second = sum(len(group.trajectories) for group in groups[:2])
    for i, row in enumerate(ratio):
        if math.isnan(row[0] if row else math.nan):
            continue
        assert old[i] == pytest.approx(before[i], rel=1e-9)
        assert row == pytest.approx([math.exp(a - b) for a, b in zip(later[i], before[i], strict=True)], rel=1e-9)
        # The second mini-batch is trained after the update of the first.
        assert logprob[i] == pytest.approx((later if i >= of_second else before)[i], rel=1e-9)


@pytest.mark.parametrize("name", SCORERS)
def test_a_reward_model_has_scores_and_no_coefficient(name: str) -> None:
    done, groups = learned(name, CUTS[2], record_tokens=True), groups_of(name)
    assert done.report is not None
    assert done.report.token_rows is not None
    names = set().union(*done.report.token_rows)
    assert {"score", "weight"} <= names
    assert names.isdisjoint({"coefficient", "logprob", "ratio"})
    role = method_of(name).objectives()[0].model
    wanted = [[x.item() for x in row] for row in models_of().said(role, groups=groups).scores]
    for found, row in zip(of_drawn(done, "score", groups), wanted, strict=True):
        assert all(math.isnan(x) for x in found) or found == pytest.approx(row, rel=1e-9)


@pytest.mark.parametrize("name", ["grpo", "dapo", "gspo", "cispo"])
def test_without_any_spread_every_coefficient_is_0(name: str) -> None:
    """Nothing is computed, and no group teaches anything: that is what the page has to show."""
    groups = [
        replace(g, trajectories=tuple(replace(t, score=Score(1.0)) for t in g.trajectories)) for g in groups_of(name)
    ]
    method = resolve_method({"name": name, "beta": 0.0})
    done = learn(method, groups, CUTS[0], models_of(), record_tokens=True)
    assert done.losses["policy"] == [0.0] * len(done.losses["policy"])
    for row in of_drawn(done, "coefficient", groups):
        assert row == [0.0] * len(row)


def test_a_token_without_a_gradient_has_0_and_not_minus_0() -> None:
    done, groups = learned("grpo rollout", CUTS[0], record_tokens=True), groups_of("grpo rollout")
    zeros = [x for row in of_drawn(done, "coefficient", groups) for x in row if x == 0]
    assert zeros
    assert all(math.copysign(1, x) == 1 for x in zeros)


@pytest.mark.parametrize("limits", CUTS)
def test_tokens_that_are_not_trained_have_no_numbers(limits: MicrobatchLimits) -> None:
    """What a tool wrote between the drawn tokens, and all of a trajectory whose reward failed."""
    done, groups = learned("grpo k3", limits, record_tokens=True), groups_of("grpo k3")
    assert done.report is not None
    assert done.report.token_rows is not None
    trajectories = [t for group in groups for t in group.trajectories]
    others = 0
    for trajectory, row in zip(trajectories, done.report.token_rows, strict=True):
        trained = [
            t.score is not None and t.score.total is not None and own for t in (trajectory,) for own in t.loss_mask
        ]
        assert row["loss_mask"] == trained
        for name in (
            "logprob",
            "old_logprob",
            "ref_logprob",
            "kl",
            "ratio",
            "clipped",
            "entropy",
            "coefficient",
            "weight",
        ):
            numbers = row.get(name, [math.nan] * len(trained))
            assert [not math.isnan(x) for x in numbers] == trained, name
        others += trained.count(False)
    assert others > 5
