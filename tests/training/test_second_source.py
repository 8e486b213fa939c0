"""The learner's second source beside plain loops over a model's own forward pass: its shares, its streams, its loss."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from one_thread import one_thread
from plain_forward import plain_gradient, plain_logprobs, plain_model, record_gradients, relative_error
from sharpen.batch import Batch
from sharpen.errors import ModelError, RecipeError
from sharpen.functional.losses.kl import k3
from sharpen.launch.models import load_frozen
from sharpen.methods import GRPO, SFT, Method, Mixed
from sharpen.methods.coefficient import AdaptiveCoefficient
from sharpen.methods.streams import Producer, StepModels, logprobs_of
from sharpen.models.forward import MicrobatchLimits
from sharpen.models.policy import Policy, load_policy
from sharpen.models.settings import ModelSettings
from sharpen.training.annotate import Annotator
from sharpen.training.held_out import measure_groups
from sharpen.training.learner import Learner
from sharpen.training.ranks import OneRank, Ranks
from sharpen.training.settings import OptimizerSettings
from sharpen.types import Group, Prompt, Score, single_turn
from thread_ranks import on_each
from tiny_runs import tiny_recipe, tiny_start_model

__all__ = ["one_thread"]

COEFFICIENT = 2.5
LIMITS = MicrobatchLimits(16, True)
STILL = OptimizerSettings(learning_rate=1e-12, warmup_steps=0, schedule="constant", weight_decay=0.0)
MOVING = OptimizerSettings(learning_rate=0.02, warmup_steps=0, schedule="constant")
UNCLIPPED = STILL.model_copy(update={"max_grad_norm": None})
WRITTEN = (((3, 13), (5, 1)), ((4, 9), (6, 7, 8, 1)), ((14,), (9, 10, 1)), ((5, 6, 7), (12, 3, 4, 1)))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_start_model(tmp_path_factory.mktemp("second_source") / "model")


def mixing(second: Method, **settings: Any) -> Method:
    """GRPO with this second source."""

    class Mixing(GRPO):
        name = "mixing"

        def mixed(self) -> Mixed:
            return Mixed(second, COEFFICIENT, 4)

    return Mixing(group_size=2, **settings)


def flat_groups(count: int) -> list[Group]:
    """Equal rewards, so that the main loss has no gradient."""
    return [
        Group(
            Prompt(str(p), (3, p + 4), "", {}),
            tuple(
                single_turn((3, p + 4), (5, 6 + i, 1), "", logprobs=(-1.0,) * 3, versions=(0,) * 3, score=Score(1.0))
                for i in range(2)
            ),
        )
        for p in range(count)
    ]


def written(count: int) -> list[Group]:
    return [
        Group(Prompt(f"w{i}", prefix, "", {}), (single_turn(prefix, tokens, ""),))
        for i, (prefix, tokens) in enumerate(WRITTEN[:count])
    ]


def learner_of(method: Method, model: Path, settings: OptimizerSettings = STILL, ranks: Ranks | None = None) -> Learner:
    policy = load_policy(model, device="cpu")
    annotator = Annotator({"policy": policy}, None, 0.7, LIMITS, ranks=ranks or OneRank())
    return Learner(method, {"policy": policy}, annotator, settings, steps=4, completion_limit=8)


def nll(model: Path, rows: Sequence[int]) -> tuple[Tensor, float]:
    """Gradient and value of the mean of −log π over the tokens of these rows, at temperature 1."""
    plain = plain_model(model)
    loss = -torch.cat([plain_logprobs(plain, *WRITTEN[i]) for i in rows]).mean()
    return plain_gradient(plain, loss), loss.item()


@pytest.mark.parametrize(
    ("groups", "rows", "shares"),
    [
        (4, 4, [[0], [1], [2], [3]]),
        (4, 2, [[0], [1], [], []]),
        (3, 4, [[0, 1], [2], [3]]),
        (1, 3, [[0, 1, 2]]),
    ],
)
def test_each_row_joins_one_update_of_each_pass(groups: int, rows: int, shares: list[list[int]], model: Path) -> None:
    learner = learner_of(mixing(SFT(), minibatches=4, updates_per_rollout=2), model, UNCLIPPED)
    parameters, found = learner.models["policy"].parameters(), list[Tensor]()
    learner.optimizers["policy"].register_step_pre_hook(
        lambda *_: found.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]))
    )
    report = learner.learn(flat_groups(groups), 1, written(rows))
    assert [update.applied for update in report.updates["policy"]] == [bool(share) for share in shares] * 2
    joined = [share for share in shares if share] * 2
    wanted = [nll(model, share) for share in joined]
    assert len(found) == len(wanted)
    for gradient, (of_share, _) in zip(found, wanted, strict=True):
        assert relative_error(gradient, COEFFICIENT * of_share) < 2e-5
    mean = sum(loss for _, loss in wanted) / len(wanted)
    assert report.metrics["mixed/loss"] == pytest.approx(mean, rel=1e-5)
    losses = [update.loss for update in report.updates["policy"] if update.applied]
    assert losses == pytest.approx([COEFFICIENT * loss for _, loss in wanted], rel=1e-5)


def tripled(batch: Batch, groups: Sequence[Group], models: StepModels) -> Mapping[str, Tensor]:
    return {"tripled": 3.0 * batch.mask_ET}


class OfItsOwn(SFT):
    """Log-likelihood with advantages from a stream of its own, without the first token of a completion."""

    name = "of_its_own"

    @property
    def streams(self) -> frozenset[str]:
        return frozenset({"tripled"})

    def producers(self) -> tuple[Producer, ...]:
        return (Producer(("tripled",), tripled),)

    def advantages(self, batch: Batch) -> Tensor:
        return batch["tripled"]

    def loss_mask(self, batch: Batch) -> Tensor:
        first_ET = batch.mask_ET.cumsum(dim=1) == 1
        return batch.mask_ET & ~first_ET


def test_a_second_source_has_streams_and_a_loss_mask_of_its_own(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = record_gradients(monkeypatch)
    learner_of(mixing(OfItsOwn()), model).learn(flat_groups(2), 1, written(4))
    plain = plain_model(model)
    terms = torch.cat([plain_logprobs(plain, *row)[1:] for row in WRITTEN])
    assert relative_error(found[0], plain_gradient(plain, -3 * COEFFICIENT * terms.mean())) < 2e-5


def test_held_out_completions_have_the_streams_and_the_loss_mask_of_training(model: Path) -> None:
    method, policy = OfItsOwn(), load_policy(model, device="cpu")
    annotator = Annotator({"policy": policy}, None, 1.0, LIMITS, {}, method.producers())
    plain = plain_model(model)
    with torch.no_grad():
        terms = torch.cat([plain_logprobs(plain, *row)[1:] for row in WRITTEN])
    found = measure_groups(method, annotator, written(4))["loss"].mean
    assert found == pytest.approx(-3 * terms.mean().item(), rel=1e-5)


def distilling(teacher: Path) -> Method:
    """SFT with the probability of each token under a teacher as its advantage."""

    class Distilling(SFT):
        name = "distilling"

        @property
        def streams(self) -> frozenset[str]:
            return frozenset({"teacher_logprobs"})

        def frozen_models(self) -> dict[str, str]:
            return {"teacher": str(teacher)}

        def producers(self) -> tuple[Producer, ...]:
            return (logprobs_of("teacher", "teacher_logprobs"),)

        def advantages(self, batch: Batch) -> Tensor:
            return batch["teacher_logprobs"].exp() * batch.mask_ET

    return Distilling()


def test_the_frozen_models_of_a_second_source_are_loaded(model: Path, tmp_path: Path) -> None:
    other = tiny_start_model(tmp_path / "other")
    policy = load_policy(model, device="cpu")
    settings = ModelSettings(path=str(model))

    def loaded(method: Method) -> Mapping[str, Any]:
        return load_frozen(settings, method, policy, seed=0, trust_remote_code=False)

    frozen = loaded(mixing(distilling(other)))
    assert list(frozen) == ["teacher"]
    assert isinstance(frozen["teacher"], Policy)
    assert Path(frozen["teacher"].source) == other

    class Both(type(mixing(distilling(other)))):  # type: ignore[misc]
        teacher: str = str(model)

        def frozen_models(self) -> dict[str, str]:
            return {"teacher": self.teacher}

    with pytest.raises(ModelError, match=r"method mixing has its teacher at .*, its second source at .*: give them"):
        loaded(Both(group_size=2))
    assert list(loaded(Both(group_size=2, teacher=str(other)))) == ["teacher"]


class Adapting(SFT):
    name = "adapting"

    def coefficients(self) -> Mapping[str, AdaptiveCoefficient]:
        return {"c": AdaptiveCoefficient(1.0, target=0.1)}


@pytest.mark.parametrize(
    ("second", "minibatches", "said"),
    [
        (SFT(), 5, "the second source of method mixing gives 4 prompts per step, too few for 5 minibatches"),
        (Adapting(), 1, "the second source of method mixing cannot adapt a coefficient"),
    ],
)
def test_a_second_source_that_does_not_fit_is_refused(
    second: Method, minibatches: int, said: str, model: Path, tmp_path: Path
) -> None:
    method = mixing(second, minibatches=minibatches)
    with pytest.raises(RecipeError, match=said):
        tiny_recipe(tmp_path, model, "mixing", method=method, training={"prompts_per_step": 8})


class Watched(GRPO):
    """A coefficient that follows KL(π_old ‖ π), and one that follows the mean log-probability."""

    name = "watched"

    @property
    def streams(self) -> frozenset[str]:
        return super().streams | {"old_logprobs"}

    def coefficients(self) -> Mapping[str, AdaptiveCoefficient]:
        return {
            "shift": AdaptiveCoefficient(1.0, target=1e-9, rule="double", measured_by="kl_old"),
            "likelihood": AdaptiveCoefficient(1.0, target=1e-9, rule="double", measured_by="logprob"),
            "norm": AdaptiveCoefficient(1.0, target=1e-9, rule="double", measured_by="grad_norm"),
        }


def told_apart(groups: Sequence[Group]) -> list[Group]:
    return [
        Group(
            group.prompt,
            tuple(
                single_turn(group.prompt.token_ids, t.token_ids, "", versions=(0,) * 3, score=Score(float(i)))
                for i, t in enumerate(group.trajectories)
            ),
        )
        for group in groups
    ]


class WatchedMixing(Watched):
    name = "watched_mixing"

    def mixed(self) -> Mixed:
        return Mixed(SFT(), COEFFICIENT, 4)


def test_every_rank_has_the_metrics_and_the_coefficients_of_one_learner(model: Path) -> None:
    def learned(ranks: Ranks | None = None) -> tuple[dict[str, float], dict[str, float]]:
        learner = learner_of(WatchedMixing(group_size=2), model, MOVING, ranks)
        report = learner.learn(told_apart(flat_groups(3)), 1, written(4))
        return report.metrics, learner.coefficients.values

    metrics, coefficients = learned()
    assert metrics["mixed/loss"] == pytest.approx(nll(model, range(4))[1], rel=1e-5)
    for on_rank in on_each(2, learned):
        assert on_rank[0] == pytest.approx(metrics, rel=1e-3, abs=1e-5)
        assert on_rank[1] == coefficients == {"shift": 2.0, "likelihood": 0.5, "norm": 2.0}


def test_the_learner_adapts_its_coefficients(model: Path) -> None:
    """A log-probability is below any target, the shift and the norm of the gradient are above."""
    groups = told_apart(flat_groups(2))
    learner = learner_of(Watched(group_size=2), model, MOVING)
    before = plain_model(model)
    report = learner.learn(groups, 1)
    assert learner.coefficients.values == {"shift": 2.0, "likelihood": 0.5, "norm": 2.0}
    assert report.batch.coefficients == {"shift": 1.0, "likelihood": 1.0, "norm": 1.0}
    after = plain_model(model)
    trained = learner.models["policy"].parameters()
    with torch.no_grad():
        for own, new in zip(after.parameters(), trained, strict=True):
            own.copy_(new)
        rows = [(g.prompt.token_ids, t.token_ids) for g in groups for t in g.trajectories]
        old, now = (torch.cat([plain_logprobs(m, *row, 0.7) for row in rows]) for m in (before, after))
    assert report.metrics["kl_old"] == pytest.approx(k3(old, now).mean().item(), rel=1e-3)
    assert report.metrics["logprob"] == pytest.approx(old.mean().item(), rel=1e-5)
    assert math.isfinite(report.metrics["kl_old"])
    assert report.metrics["kl_old"] > 1e-6
