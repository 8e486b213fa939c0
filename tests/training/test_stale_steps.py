"""The learner on a batch that an older version drew, beside plain loops over a model's own forward pass."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from one_thread import one_thread
from plain_forward import plain_gradient, plain_logprobs, plain_model, record_gradients, relative_error
from sharpen.errors import StaleError
from sharpen.methods import DAPO, GRPO, GSPO, SFT, Method
from sharpen.models.forward import MicrobatchLimits
from sharpen.models.policy import load_policy
from sharpen.training.annotate import Annotator
from sharpen.training.learner import Learner
from sharpen.training.settings import OptimizerSettings
from sharpen.types import NOT_DRAWN, Group, Prompt, Score, Trajectory, single_turn
from tiny_runs import tiny_start_model

__all__ = ["one_thread"]

PROMPTS = ((3, 13, 4), (9, 14, 5, 6))
TOKENS = (((5, 1), (6, 7, 8, 1), (9, 10, 11)), ((12, 3, 1), (4, 5), (6, 8, 9, 10, 1)))
REWARDS = ((1.0, 0.0, 0.25), (0.0, 0.75, 1.0))
TEMPERATURE = 0.9
CAP, EPS = 1.2, 0.2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("stale") / "model")


def rollout_logprobs(model: Path, spread: float = 0.4) -> list[list[list[float]]]:
    """log π_rollout: π's by up to ``spread`` nats per token off, on either side."""
    plain, generator = plain_model(model), torch.Generator().manual_seed(2)
    return [
        [
            (
                plain_logprobs(plain, prompt, tokens, TEMPERATURE).detach()
                + spread * (2 * torch.rand(len(tokens), generator=generator) - 1)
            ).tolist()
            for tokens in of_prompt
        ]
        for prompt, of_prompt in zip(PROMPTS, TOKENS, strict=True)
    ]


def drawn(said: Sequence[Sequence[Sequence[float]]], versions: Callable[[int], int] = lambda t: 0) -> list[Group]:
    """The groups, drawn with these log-probabilities; token t by version ``versions(t)``."""

    def trajectory(prompt: tuple[int, ...], p: int, i: int) -> Trajectory:
        tokens = TOKENS[p][i]
        return single_turn(
            prompt,
            tokens,
            "",
            logprobs=tuple(said[p][i]),
            versions=tuple(versions(t) for t in range(len(tokens))),
            score=Score(REWARDS[p][i]),
        )

    return [
        Group(Prompt(str(p), prompt, "", {}), tuple(trajectory(prompt, p, i) for i in range(3)))
        for p, prompt in enumerate(PROMPTS)
    ]


def learner_at(version: int, method: Method, model: Path) -> Learner:
    policy = load_policy(model, device="cpu")
    annotator = Annotator({"policy": policy}, None, TEMPERATURE, MicrobatchLimits(16, True))
    optimizer = OptimizerSettings(learning_rate=0.05, warmup_steps=0, schedule="constant")
    learner = Learner(method, {"policy": policy}, annotator, optimizer, steps=4, completion_limit=8)
    learner.load(learner.state(), version)
    return learner


def oracle(now: nn.Module, term: Callable[[Tensor, float, float, float], Tensor], old: nn.Module, said: Any) -> Tensor:
    """The gradient of −1/(P·G) Σ_i 1/|o_i| Σ_t term(log π, log π_old, log π_rollout, Â), Â the group's z-score."""
    loss = torch.zeros(())
    for p, prompt in enumerate(PROMPTS):
        mean = sum(REWARDS[p]) / 3
        std = (sum((r - mean) ** 2 for r in REWARDS[p]) / 2) ** 0.5
        for i, tokens in enumerate(TOKENS[p]):
            advantage = (REWARDS[p][i] - mean) / std
            logprobs = plain_logprobs(now, prompt, tokens, TEMPERATURE)
            of_old = plain_logprobs(old, prompt, tokens, TEMPERATURE).detach().tolist()
            for t, logprob in enumerate(logprobs):
                loss = loss - term(logprob, of_old[t], said[p][i][t], advantage) / (2 * 3 * len(tokens))
    return plain_gradient(now, loss)


def clipped(ratio: Tensor, advantage: float) -> Tensor:
    return torch.minimum(ratio * advantage, ratio.clamp(1 - EPS, 1 + EPS) * advantage)


def truncated(logprob: Tensor, old: float, rollout: float, advantage: float) -> Tensor:
    """min(π_old / π_rollout, C) times the clipped surrogate with the ratio π / π_old."""
    weight = min(torch.tensor(old - rollout).exp().item(), CAP)
    return weight * clipped((logprob - old).exp(), advantage)


def from_rollout(logprob: Tensor, old: float, rollout: float, advantage: float) -> Tensor:
    """The clipped surrogate with the ratio π / π_rollout."""
    return clipped((logprob - rollout).exp(), advantage)


@pytest.mark.parametrize(
    ("settings", "term"),
    [({"tis_cap": CAP}, truncated), ({"old": "rollout"}, from_rollout)],
    ids=["tis_cap", "old rollout"],
)
@pytest.mark.parametrize("passes", [1, 3])
def test_the_gradient_of_each_update_is_that_of_the_formula(
    settings: dict[str, Any], term: Any, passes: int, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """π_old is the policy at the start of the step in every update, however far π has moved."""
    said = rollout_logprobs(model)
    old = plain_model(model)
    apart = [
        o - r
        for p, prompt in enumerate(PROMPTS)
        for i, tokens in enumerate(TOKENS[p])
        for o, r in zip(plain_logprobs(old, prompt, tokens, TEMPERATURE).tolist(), said[p][i], strict=True)
    ]
    # The cap and both bounds of the clip have something to do.
    assert 0 < sum(torch.tensor(apart).exp() > CAP) < len(apart)
    assert min(apart) < torch.tensor(1 - EPS).log() < torch.tensor(1 + EPS).log() < max(apart)

    learner = learner_at(1, GRPO(group_size=3, updates_per_rollout=passes, **settings), model)
    at_update: list[nn.Module] = []
    step = Learner.step

    def keeping(self: Learner, *arguments: Any) -> Any:
        now = copy.deepcopy(old)
        weights = zip(now.parameters(), self.models["policy"].parameters(), strict=True)
        for own, trained in weights:
            own.data.copy_(trained.data)
        at_update.append(now)
        return step(self, *arguments)

    monkeypatch.setattr(Learner, "step", keeping)
    found = record_gradients(monkeypatch)
    report = learner.learn(drawn(said), 2)
    assert report.metrics["staleness/mean"] == report.metrics["staleness/max"] == 1
    assert len(found) == len(at_update) == passes
    for gradient, now in zip(found, at_update, strict=True):
        assert relative_error(gradient, oracle(now, term, old, said)) < 2e-5
    mismatch = 0.0 if "old" in settings else sum(map(abs, apart)) / len(apart)
    assert report.metrics["mismatch/mean"] == pytest.approx(mismatch, rel=1e-4)
    # The only update of a step computes π_old itself.
    assert ("old_logprobs" in report.batch) == (passes > 1 or "old" in settings)
    assert learner.version == 2


def test_without_the_correction_it_would_be_another_gradient(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is on-policy: the same batch of the learner's own version has ratio 1 and no weight."""
    said = rollout_logprobs(model)
    found = record_gradients(monkeypatch)
    learner_at(1, GRPO(group_size=3), model).learn(drawn(said, lambda t: 1), 2)
    plain = plain_model(model)
    assert relative_error(found[0], oracle(plain, lambda n, o, r, a: (n - o).exp() * a, plain, said)) < 2e-5
    assert relative_error(found[0], oracle(plain, truncated, plain, said)) > 0.05


@pytest.mark.parametrize("method", [GRPO(), DAPO(), GSPO()], ids=lambda method: method.name)
@pytest.mark.parametrize("stale", [0, 2], ids=["all of it", "one token of each trajectory"])
def test_a_stale_batch_is_refused_where_nothing_corrects_for_it(method: Method, stale: int, model: Path) -> None:
    versions = (lambda t: 3) if stale == 0 else (lambda t: 3 if t == 0 else 4)
    learner = learner_at(4, method, model)
    before = [p.detach().clone() for p in learner.models["policy"].parameters()]
    with pytest.raises(StaleError) as raised:
        learner.learn(drawn(rollout_logprobs(model), versions), 5)
    assert str(raised.value) == (
        "version 3 of the policy drew tokens that version 4 would be trained on as if it had drawn them, and method "
        f"{method.name} does not correct for that: set method.tis_cap (2, say), or method.old: rollout"
    )
    after = learner.models["policy"].parameters()
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert learner.version == 4


def test_tokens_that_nobody_drew_are_never_stale(model: Path) -> None:
    """A tool's reply among tokens of the present version; demonstrations."""
    learner = learner_at(4, GRPO(group_size=3), model)
    learner.learn(drawn(rollout_logprobs(model), lambda t: NOT_DRAWN if t == 1 else 4), 5)
    written = [
        Group(
            Prompt("", PROMPTS[0], "", {}),
            (single_turn(PROMPTS[0], TOKENS[0][0], ""),),
        )
    ]
    assert "staleness/mean" not in learner_at(4, SFT(), model).learn(written, 5).metrics


@pytest.mark.parametrize("settings", [{"tis_cap": 2.0}, {"old": "rollout"}], ids=["tis_cap", "old rollout"])
@pytest.mark.parametrize("version", [0, 3], ids=["stale", "on-policy"])
def test_a_correction_needs_the_log_probabilities_of_the_rollout(
    settings: dict[str, Any], version: int, model: Path
) -> None:
    """Without them a stale batch would have ratio 1. One sample that lacks them is enough."""
    groups = drawn(rollout_logprobs(model), lambda t: version)
    first, second, third = groups[1].trajectories
    [sample] = second.samples
    bare = dataclasses.replace(second, samples=(dataclasses.replace(sample, logprobs=()),), draw_id=17)
    groups[1] = dataclasses.replace(groups[1], trajectories=(first, bare, third))
    learner = learner_at(3, GRPO(group_size=3, **settings), model)
    before = [p.detach().clone() for p in learner.models["policy"].parameters()]
    with pytest.raises(StaleError) as raised:
        learner.learn(groups, 4)
    assert str(raised.value) == (
        "prompt 1, draw 17: some tokens lack the log-probability with which they were drawn, and method grpo divides "
        "by it (method.tis_cap or method.old: rollout): the engine must return one for each token that it draws"
    )
    assert all(torch.equal(a, b) for a, b in zip(before, learner.models["policy"].parameters(), strict=True))


def test_a_method_that_corrects_nothing_needs_no_log_probabilities_of_the_rollout(model: Path) -> None:
    groups = [
        dataclasses.replace(
            group,
            trajectories=tuple(
                dataclasses.replace(t, samples=tuple(dataclasses.replace(s, logprobs=()) for s in t.samples))
                for t in group.trajectories
            ),
        )
        for group in drawn(rollout_logprobs(model), lambda t: 3)
    ]
    report = learner_at(3, GRPO(group_size=3), model).learn(groups, 4)
    assert "mismatch/mean" not in report.metrics
    assert [update.applied for update in report.updates["policy"]] == [True]
