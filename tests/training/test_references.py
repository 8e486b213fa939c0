"""The reference of a run: fixed, reset or an average; what it said is kept; and how strongly it holds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from sharpen.batch import Batch, Need
from sharpen.data.collate import collate
from sharpen.launch.run import Run, start
from sharpen.methods.kl import KL
from sharpen.models.forward import MicrobatchLimits
from sharpen.models.policy import Policy, load_policy
from sharpen.models.reference import frozen
from sharpen.training import annotate
from sharpen.training.reference import Reference
from sharpen.types import Group, Score, single_turn
from tiny_models import make_prompt, own_logprobs, tiny_policy
from tiny_runs import digits, given, tiny_recipe, tiny_start_model

LIMITS = MicrobatchLimits(60, shared_prompt=True)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("references") / "model")


def run_of(path: Path, model: Path, name: str = "grpo", *, steps: int = 4, method: Any = None, **changes: Any) -> Run:
    settings: dict[str, Any] = {
        "method": method or {},
        "reward": "<given in Python>",
        "training": {"steps": steps},
        "optimizer": {"warmup_steps": 0, "schedule": "constant", "learning_rate": 0.01},
        "evaluation": {"every": 0},
        "checkpoint": {"every": 1, "keep": 9, "best": None},
    }
    return start(given(tiny_recipe(path, model, name, **{**settings, **changes}), {"reward": digits}))


def weights(run: Run, step: int, part: str = "") -> dict[str, Tensor]:
    return load_file(run.path / "checkpoints" / f"step_{step:06d}" / part / "model.safetensors")


def test_a_fixed_reference_is_the_initial_policy_and_is_not_saved_again(model: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", model)
    assert not (run.model / "reference").exists()
    # The KL to it grows; within the first step's first update it is 0.
    rows = run.metric_rows()
    assert 0 < rows[0]["kl"] < rows[1]["kl"] < rows[3]["kl"]


@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_the_ratio_is_over_the_policy_that_sampled(name: str, model: Path, tmp_path: Path) -> None:
    """With one update per rollout it is 1 and nothing is clipped, however far the reference was left behind."""
    method = {"beta": 0.01, "updates_per_rollout": 1, "minibatches": 1}
    rows = run_of(tmp_path / "run", model, name, steps=5, method=method).metric_rows()
    assert [(row["ratio/mean"], row["ratio/p99.9"], row["clip_fraction"]) for row in rows] == [(1.0, 1.0, 0.0)] * 5
    assert rows[0]["kl"] == pytest.approx(0.0, abs=1e-6)
    assert rows[4]["kl"] > 0.01


def test_a_reference_that_is_reset_is_the_policy_of_every_second_step(model: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", model, method={"kl": {"reference": "reset", "reset_every": 2}})
    begin = load_file(model / "model.safetensors")
    expected = {1: begin, 2: weights(run, 2), 3: weights(run, 2), 4: weights(run, 4)}
    for step, wanted in expected.items():
        found = weights(run, step, "reference")
        assert all(torch.equal(found[name], wanted[name]) for name in wanted), step
    assert not torch.equal(begin["model.embed_tokens.weight"], expected[2]["model.embed_tokens.weight"])


def test_a_moving_average_is_its_recurrence(model: Path, tmp_path: Path) -> None:
    """π_ref ← 0.9 π_ref + 0.1 π after every step."""
    run = run_of(tmp_path / "run", model, method={"kl": {"reference": "average", "decay": 0.9}})
    average = {name: p.double() for name, p in load_file(model / "model.safetensors").items()}
    for step in (1, 2, 3, 4):
        policy, found = weights(run, step), weights(run, step, "reference")
        for name in average:
            average[name] = 0.9 * average[name] + 0.1 * policy[name].double()
            torch.testing.assert_close(found[name].double(), average[name], rtol=0, atol=1e-6)
            assert (policy[name] - found[name]).abs().max() > 1e-4


def test_without_a_penalty_there_is_no_reference(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_reference(policy: Policy) -> Policy:
        raise AssertionError("nothing is compared with a reference")

    monkeypatch.setattr("sharpen.launch.models.frozen", no_reference)
    rows = run_of(tmp_path / "run", model, steps=2, method={"beta": 0.0}).metric_rows()
    assert all("kl" not in row and "beta" not in row for row in rows)
    with pytest.raises(AssertionError, match="nothing is compared"):
        run_of(tmp_path / "other", model, steps=1)


# What it said


def ranked(policy: Policy) -> list[Group]:
    """Two prompts with two and three completions of 1 to 5 tokens."""
    groups = []
    for text, answers in (("1+2=", ("3", "44")), ("7-7=", ("0", "12345", "1;2"))):
        prompt = make_prompt(policy, text)
        completions = tuple(
            single_turn(prompt.token_ids, tuple(policy.tokenizer(answer)["input_ids"]), answer) for answer in answers
        )
        groups.append(Group(prompt, completions).scored([Score(float(i)) for i in range(len(completions))]))
    return groups


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sequences the reference was asked about, call by call."""
    counts: list[int] = []
    ask = annotate._StepModels.output

    def counting(self: Any, model: str, need: Need, batch: Batch, **other: Any) -> Tensor:
        if model == "reference":
            counts.append(len(batch))
        return ask(self, model, need, batch, **other)

    monkeypatch.setattr(annotate._StepModels, "output", counting)
    return counts


def said_by_reference(reference: Reference, groups: list[Group], temperature: float) -> Tensor:
    annotator = annotate.Annotator({"policy": reference.followed}, reference, temperature, LIMITS)
    return annotator.annotate(collate(groups), frozenset({"ref_logprobs"}), groups)["ref_logprobs"]


def test_what_a_fixed_reference_says_of_data_is_its_own_and_computed_once(computed: list[int]) -> None:
    policy = tiny_policy(seed=1)
    reference = Reference(frozen(tiny_policy(seed=1)), policy, KL())
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.5)
    groups = ranked(policy)
    for order, asked in (([0], 2), ([1, 0], 3), ([0, 1], None)):
        chosen = [groups[i] for i in order]
        batch = collate(chosen)
        before = len(computed)
        found_ET = said_by_reference(reference, chosen, 0.7)
        own_ET = torch.stack(own_logprobs(reference.policy.model, batch, 0.7)).detach() * batch.mask_ET
        torch.testing.assert_close(found_ET, own_ET, rtol=0, atol=1e-5)
        assert computed[before:] == ([] if asked is None else [asked])


def test_what_moves_or_was_sampled_is_never_remembered(computed: list[int]) -> None:
    policy = tiny_policy(seed=1)
    moving = Reference(frozen(tiny_policy(seed=1)), policy, KL(reference="average"))
    groups = ranked(policy)
    for _ in range(2):
        said_by_reference(moving, groups, 1.0)
    fixed = Reference(frozen(tiny_policy(seed=1)), policy, KL())
    drawn = [replace(g, trajectories=tuple(replace(c, draw_id=5) for c in g.trajectories)) for g in groups]
    for _ in range(2):
        said_by_reference(fixed, drawn, 1.0)
    assert computed == [5, 5, 5, 5]


def test_dpo_asks_its_reference_once_per_completion_over_all_epochs(
    model: Path, tmp_path: Path, computed: list[int]
) -> None:
    """Ten pairs, four a step: in six steps every pair twice or more."""
    run = run_of(tmp_path / "run", model, "dpo", steps=6)
    assert sum(computed) == 20
    rows = run.metric_rows()
    assert rows[0]["loss"] == pytest.approx(0.6931472, abs=1e-5)
    assert rows[0]["pair_margin"] == pytest.approx(0.0, abs=1e-5)
    assert rows[5]["loss"] < 0.69


# How strongly it holds


def test_the_penalty_warms_up(model: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path / "run", model, steps=5, method={"beta": 0.4, "kl": {"warmup_steps": 4}})
    assert [row["beta"] for row in run.metric_rows()] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4])


@pytest.mark.parametrize("placement", ["loss", "reward"])
def test_the_penalty_doubles_and_halves_with_the_kl_that_was_measured(
    placement: str, model: Path, tmp_path: Path
) -> None:
    target = 0.06
    kl = {"target": target, "rule": "double", "placement": placement}
    rows = run_of(tmp_path / "run", model, steps=6, method={"beta": 0.04, "kl": kl}).metric_rows()
    level, changes = 0.04, []
    for row in rows:
        assert row["beta"] == pytest.approx(level)
        factor = 0.5 if row["kl"] < target / 1.5 else 2.0 if row["kl"] > 1.5 * target else 1.0
        level *= factor
        changes.append(factor)
    assert {0.5, 2.0} <= set(changes)


def test_the_penalty_follows_the_kl_in_proportion(model: Path, tmp_path: Path) -> None:
    """Sixteen completions a step over a horizon of 64: at most a fifth of a quarter at once."""
    target = 0.02
    kl = {"target": target, "rule": "proportional", "horizon": 64}
    rows = run_of(tmp_path / "run", model, steps=6, method={"beta": 0.04, "kl": kl}).metric_rows()
    level, errors = 0.04, []
    for row in rows:
        assert row["beta"] == pytest.approx(level)
        errors.append(max(-0.2, min(0.2, (row["kl"] - target) / target)))
        level *= 1 + errors[-1] * 16 / 64
    assert min(errors) < 0 < max(errors)


@pytest.mark.parametrize(("updates", "minibatches"), [(1, 1), (2, 2)])
def test_the_way_gone_is_measured_after_the_last_update(
    updates: int, minibatches: int, model: Path, drawn: list[list[Group]], tmp_path: Path
) -> None:
    """KL(π_old ‖ π) by k3, between the policy that sampled and the one that was saved after the step."""
    method = {"form": "kl", "beta": 0.0, "updates_per_rollout": updates, "minibatches": minibatches}
    run = run_of(tmp_path / "run", model, "ppo", steps=1, method=method)
    batch = collate(drawn[0])
    with torch.no_grad():
        old, new = (
            torch.stack(own_logprobs(load_policy(path, device="cpu").model, batch, 1.0))[batch.mask_ET].double()
            for path in (model, run.model)
        )
    expected = ((new - old).exp() - 1 - (new - old)).mean().item()
    assert run.metric_rows()[0]["kl_old"] == pytest.approx(expected, rel=1e-4)


def test_the_kl_form_of_ppo_adapts_to_the_way_gone_within_each_step(model: Path, tmp_path: Path) -> None:
    method = {"form": "kl", "old_kl_coef": 1.0, "old_kl_target": 0.01, "updates_per_rollout": 2, "beta": 0.0}
    rows = run_of(tmp_path / "run", model, "ppo", steps=5, method=method).metric_rows()
    level, changes = 1.0, []
    for row in rows:
        assert row["old_kl"] == pytest.approx(level)
        assert row["kl_old"] > 0
        changes.append(0.5 if row["kl_old"] < 0.01 / 1.5 else 2.0 if row["kl_old"] > 0.015 else 1.0)
        level *= changes[-1]
    assert len(set(changes)) > 1
