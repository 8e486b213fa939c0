"""What the slow formulas and a learner make of a step of hand-made trajectories."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from oracles import trajectories as oracle
from oracles.methods import LOSSES, Said
from sharpen.functional.losses import reduce
from sharpen.methods import Method, Role
from sharpen.models.forward import MicrobatchLimits
from sharpen.models.model import Model
from sharpen.models.policy import Policy
from sharpen.models.scorer import Scorer
from sharpen.training.annotate import Annotator
from sharpen.training.learner import Learner, StepReport
from sharpen.training.ranks import OneRank, Ranks
from sharpen.training.reference import Reference
from sharpen.training.settings import OptimizerSettings
from sharpen.types import Group, Sample, Trajectory
from tiny_models import loaded_scorer, tiny_policy
from trajectory_groups import trajectories_of

TEMPERATURE = 0.9
LIMIT = 10
"""Tokens of a whole trajectory."""
WHOLE = MicrobatchLimits(100_000, True)
REDUCTIONS = (
    reduce.groups_mean,
    reduce.sequences,
    reduce.per_sequence,
    reduce.tokens_of_group,
    reduce.tokens_of_batch,
    reduce.constant_length,
)


@pytest.fixture(autouse=True, scope="module")
def float64() -> Iterator[None]:
    """Every number of a step in float64: also weights, advantages and streams, which are float32 in a run."""
    before = torch.get_default_dtype()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        for reduction in REDUCTIONS:
            patch.setitem(reduction.__kwdefaults__, "dtype", torch.float64)
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(before)


@dataclass
class Models:
    """The models of a step, those they become with its first update, and a reference."""

    trained: Mapping[Role, Model]
    later: Mapping[Role, Model]
    reference: Policy
    trajectories: list[list[Trajectory]] = field(init=False)
    _said: dict[Any, Said] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.trajectories = trajectories_of(self.reference.config.vocab_size)

    def said(self, role: Role | str, *, later: bool = False, groups: Sequence[Group] | None = None) -> Said:
        """What a model says of the drawn tokens of ``groups``, or of the script's; its graph is kept."""
        every = [t for group in groups or () for t in group.trajectories]
        if groups is None:
            every = [t for group in self.trajectories for t in group]
        key = (
            role,
            later,
            tuple(tuple(map(ids_of, t.samples)) for t in every),
            tuple(oracle.drawn(t) == [] for t in every),
        )
        if key not in self._said:
            self._said[key] = self._say(role, later, every)
        return self._said[key]

    def _say(self, role: Role | str, later: bool, every: list[Trajectory]) -> Said:
        if role == "reference":
            with torch.no_grad():
                return oracle.said_of_policy(self.reference.model, every, TEMPERATURE)
        model = (self.later if later else self.trained)[role]  # type: ignore[index]
        if isinstance(model, Policy):
            reference = self.reference.model
            return oracle.said_of_policy(model.model, every, TEMPERATURE, reference, model.value_head)
        assert isinstance(model, Scorer)
        return oracle.said_of_scorer(model.model, model.head, every)

    def final_values(self, role: Role, groups: Sequence[Group]) -> list[float]:
        model = self.trained[role]
        head = model.value_head if isinstance(model, Policy) else model.head  # type: ignore[attr-defined]
        return oracle.final_values(model.model, head, [t for group in groups for t in group.trajectories])


def ids_of(sample: Sample) -> tuple[Any, ...]:
    return sample.prefix_ids, sample.token_ids, sample.loss_mask


def floats(rows: Sequence[Sequence[Tensor]]) -> list[list[float]]:
    return [[value.item() for value in row] for row in rows]


@cache
def models_of(architecture: str = "llama") -> Models:
    def policy(seed: int) -> Policy:
        made = tiny_policy(architecture, dtype=torch.float64, seed=seed)
        made.add_value_head()
        assert made.value_head is not None
        made.value_head.double()
        torch.nn.init.normal_(made.value_head.weight, generator=torch.Generator().manual_seed(seed))
        precise(made.model)
        return made

    def moved(model: Model, seed: int) -> Model:
        copy, generator = copied(model), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in copy.parameters():
                parameter.add_(0.01 * torch.randn(parameter.shape, generator=generator))
        return copy

    trained: dict[Role, Model] = {"policy": policy(0)}
    with TemporaryDirectory() as folder:
        for seed, role in enumerate(("critic", "outcome_reward_model", "process_reward_model"), start=3):
            kind: Any = "sequence" if role == "outcome_reward_model" else "token"
            scorer = loaded_scorer(Path(folder) / role, kind, architecture, seed=seed)
            scorer.model.double()
            precise(scorer.model)
            trained[role] = scorer  # type: ignore[index]
    later = {role: moved(model, seed) for seed, (role, model) in enumerate(trained.items())}
    return Models(trained, later, policy(9))


def precise(model: nn.Module) -> None:
    """transformers computes this norm in float32, whatever the type of the weights."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child).__name__ == "LlamaRMSNorm":
                norm = nn.RMSNorm(child.weight.shape, eps=child.variance_epsilon, dtype=torch.float64)
                norm.weight = child.weight
                setattr(module, name, norm)


def copied(model: Model) -> Model:
    return replace(model, root=deepcopy(model.root))


@dataclass
class Done:
    """The loss and the gradient of every update of each model."""

    losses: dict[Role, list[float]] = field(default_factory=dict)
    gradients: dict[Role, list[Tensor]] = field(default_factory=dict)
    report: StepReport | None = None
    slopes: list[list[float]] = field(default_factory=list)
    """By the formula: −∂loss/∂log π of each drawn token in the first pass, of each trajectory."""


def learn(
    method: Method,
    groups: Sequence[Group],
    limits: MicrobatchLimits,
    models: Models,
    ranks: Ranks | None = None,
    version: int = 0,
    *,
    record_tokens: bool = False,
) -> Done:
    """A step of a learner, whose models take the weights of ``models.later`` with their first update."""
    objectives = method.objectives()
    trained = {objective.model: copied(models.trained[objective.model]) for objective in objectives}
    policy = trained.get("policy")
    reference = None
    if isinstance(policy, Policy) and method.needs_reference:
        reference = Reference(models.reference, policy, method.kl_settings)
    annotator = Annotator(trained, reference, TEMPERATURE, limits, ranks=ranks or OneRank())
    settings = OptimizerSettings(learning_rate=1.0, max_grad_norm=None)
    learner = Learner(method, trained, annotator, settings, steps=version + 1, completion_limit=LIMIT)
    learner.load(learner.state(), version)
    done = Done(gradients={role: [] for role in trained})

    def record(role: Role, *_: Any) -> None:
        model = trained[role]
        done.gradients[role].append(flat([p.grad for p in model.parameters()], model))
        with torch.no_grad():
            for parameter, later in zip(model.parameters(), models.later[role].parameters(), strict=True):
                parameter.grad = None
                parameter.copy_(later)

    for role, optimizer in learner.optimizers.items():
        optimizer.register_step_pre_hook(partial(record, role))
    done.report = learner.learn(groups, version + 1, record_tokens=record_tokens)
    done.losses = {role: [u.loss for u in updates] for role, updates in done.report.updates.items()}
    return done


def flat(gradients: Sequence[Tensor | None], model: Model) -> Tensor:
    """One vector of all gradients; a parameter that has none has 0."""
    parts = zip(gradients, model.parameters(), strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in parts])


def expected(method: Method, groups: Sequence[Group], models: Models, version: int = 0) -> Done:
    """The same by the slow formulas, of the whole step or of each of its shares of groups."""
    drawn = any(sample.logprobs for group in groups for t in group.trajectories for sample in t.samples)
    passes, count = method.passes_and_minibatches
    parts = [[groups[i] for i in share] for share in torch.arange(len(groups)).tensor_split(count)]
    roles = [objective.model for objective in method.objectives()]
    done = Done({role: [] for role in roles}, {role: [] for role in roles})
    coefficients = {name: c.at(version + 1, c.initial) for name, c in method.coefficients().items()}
    for number, part in enumerate(parts * passes):
        before, state = Said(), {role: models.said(role, later=number > 0, groups=part) for role in roles}
        final: list[float] = []
        values: list[list[float]] = []
        if "policy" in roles:
            before = models.said("policy", groups=part)
            critic: Role = "critic" if "critic" in roles else "policy"
            values, final = floats(models.said(critic, groups=part).values), models.final_values(critic, part)
        step = oracle.plain_step(
            part,
            limit=LIMIT,
            old=floats(before.logprobs),
            reference=floats(models.said("reference", groups=part).logprobs),
            divergence=floats(before.divergences),
            values=values,
            final=final,
            coefficients=coefficients,
        )
        if drawn and method.old_from == "rollout":
            step.old = step.sample
        for role, loss in LOSSES[method.name](method, step, state).items():
            if role == "policy" and number < count:
                done.slopes += slopes(loss, state[role].logprobs)
            model = (models.later if number else models.trained)[role]
            found = torch.autograd.grad(loss, model.parameters(), retain_graph=True, allow_unused=True)
            done.losses[role].append(loss.item())
            done.gradients[role].append(flat(found, model))
    return done


def slopes(loss: Tensor, logprobs: Sequence[Sequence[Tensor]]) -> list[list[float]]:
    found = iter(
        torch.autograd.grad(loss, [l for row in logprobs for l in row], retain_graph=True, materialize_grads=True)
    )
    return [[-next(found).item() for _ in row] for row in logprobs]


def assert_same(found: Done, wanted: Done, bound: float) -> float:
    """Losses and gradients; returns the largest ‖Δg‖/‖g‖."""
    assert found.gradients.keys() == wanted.gradients.keys()
    largest = 0.0
    for role, gradients in wanted.gradients.items():
        assert len(found.gradients[role]) == len(gradients)
        for number, (one, other) in enumerate(zip(found.gradients[role], gradients, strict=True)):
            norm = other.norm().item()
            assert math.isfinite(norm)
            assert norm > 1e-6
            error = (one - other).norm().item() / norm
            assert error <= bound, f"{role}, update {number}: ‖Δg‖/‖g‖ is {error:.1e}"
            largest = max(largest, error)
        assert found.losses[role] == pytest.approx(wanted.losses[role], rel=max(bound, 1e-9), abs=max(bound, 1e-9))
    return largest
