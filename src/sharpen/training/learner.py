"""Trains the models on one step's groups: annotate, compute advantages, update."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

import torch

from sharpen.data.collate import collate
from sharpen.functional.losses.kl import k3
from sharpen.methods import Method, Objective, Role
from sharpen.models.model import Model
from sharpen.training.annotate import Annotator, finite
from sharpen.training.metrics import Metrics, TokenStats
from sharpen.training.optimizer import learning_rate, make_optimizer
from sharpen.training.settings import OptimizerSettings
from sharpen.training.update import Observer, Updated, optimizer_step, with_weights
from sharpen.types import Annotation, Batch, Group

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Learned:
    """What one step did: its batch, the updates of each model, and the metrics of its tokens."""

    batch: Batch
    updates: Mapping[Role, Sequence[Updated]]
    learning_rate: float
    metrics: Metrics

    @property
    def tokens(self) -> int:
        """Tokens computed in the forward and backward passes of all updates, prompts included."""
        return sum(u.tokens for updates in self.updates.values() for u in updates)


class Learner:
    """The trained models with their optimizers, and the current values of the method's adaptive coefficients."""

    def __init__(
        self,
        method: Method,
        models: Mapping[Role, Model],
        annotator: Annotator,
        optimizer: OptimizerSettings,
        *,
        steps: int,
        completion_limit: int,
    ) -> None:
        """``steps`` is the length of the run, ``completion_limit`` counts tokens."""
        self.method = method
        self.models = models
        self.annotator = annotator
        self.settings = optimizer
        self.steps = steps
        self.completion_limit = completion_limit
        self.objectives = method.objectives()
        self.main = self.objectives[0].model
        self.optimizers = {role: make_optimizer(model.parameters(), optimizer) for role, model in models.items()}
        self.coefficients = method.coefficients()
        self.coefficient_values = {name: c.initial for name, c in self.coefficients.items()}

    def learn(self, groups: Sequence[Group], step: int) -> Learned:
        """Update every model on the groups of ``step``, counted from 1, then move the reference."""
        batch = self._prepared(groups, step)
        stats = TokenStats()
        updates: dict[Role, list[Updated]] = {objective.model: [] for objective in self.objectives}
        for number, minibatch in enumerate(self._minibatches(batch)):
            observe = partial(stats.add, first_update=number == 0)
            for objective in self.objectives:
                rate = self._learning_rate(step, number)
                updates[objective.model].append(self._update(objective, minibatch, rate, observe))
        reference = self.annotator.reference
        if reference is not None:
            reference.move(step)
        computed = any(u.tokens for done in updates.values() for u in done)
        last_rate = self._learning_rate(step, len(updates[self.main]) - 1)
        return Learned(batch, updates, last_rate, stats.metrics() if computed else {})

    def policy_shift(self, batch: Batch) -> Metrics:
        """``kl_old``, KL(π_old ‖ π) after the updates on ``batch``, if a coefficient is adapted to it."""
        if all(coefficient.measured_by != "kl_old" for coefficient in self.coefficients.values()):
            return {}
        after = self.annotator.annotate(replace(batch, old_logprobs_ET=None), frozenset({"old_logprobs"}), [])
        assert batch.old_logprobs_ET is not None
        assert after.old_logprobs_ET is not None
        kl_N = k3(batch.old_logprobs_ET, after.old_logprobs_ET)[batch.mask_ET]
        return {"kl_old": kl_N.double().mean().item()} if len(kl_N) else {}

    def adapt_coefficients(self, metrics: Metrics, samples: int) -> None:
        """Adapt the coefficients to the metrics of a step with ``samples`` completions."""
        for name, coefficient in self.coefficients.items():
            if coefficient.measured_by in metrics:
                measured = metrics[coefficient.measured_by]
                self.coefficient_values[name] = coefficient.adapted(self.coefficient_values[name], measured, samples)

    def versions(self) -> dict[str, int]:
        """The optimizer steps applied to each model."""
        return {role: model.version for role, model in self.models.items()}

    def models_to_save(self) -> dict[str, Model]:
        """By subfolder of a checkpoint; the main model and its optimizer are named ``""``."""
        models = self._by_folder(self.models)
        reference = self.annotator.reference
        if reference is not None and reference.moves:
            models["reference"] = reference.policy
        return models

    def optimizers_to_save(self) -> dict[str, torch.optim.AdamW]:
        return self._by_folder(self.optimizers)

    def _by_folder(self, by_role: Mapping[Role, T]) -> dict[str, T]:
        return {"" if role == self.main else str(role): value for role, value in by_role.items()}

    def _prepared(self, groups: Sequence[Group], step: int) -> Batch:
        """The batch of a rollout with everything that its optimizer steps need."""
        method = self.method
        batch = collate(groups, completion_limit=self.completion_limit)
        coefficients = {name: c.at(step, self.coefficient_values[name]) for name, c in self.coefficients.items()}
        batch = replace(batch, coefficients=coefficients)
        batch = self.annotator.annotate(batch, method.annotations, groups)
        targets_ET = method.targets(batch)
        batch = replace(
            batch,
            advantages_ET=method.advantages(batch).float(),
            targets_ET=None if targets_ET is None else targets_ET.float(),
            mask_ET=method.loss_mask(batch),
        )
        wanted = frozenset[Annotation]().union(*(o.annotations for o in self.objectives))
        if method.passes_and_minibatches == (1, 1):
            # During the only update of a rollout, the policy is still the one that sampled.
            wanted -= {"old_logprobs"}
        assert batch.advantages_ET is not None
        finite(batch.advantages_ET, "advantages, computed from the rewards,")
        every = any(o.without_advantage for o in self.objectives if "old_logprobs" in o.annotations)
        has_gradient_E = batch.advantages_ET.ne(0).any(dim=1) | every
        return self.annotator.annotate(batch, wanted, groups, has_gradient_E)

    def _minibatches(self, batch: Batch) -> list[Batch]:
        """The batch of each optimizer step: split by prompts, in the same order in every pass."""
        passes, count = self.method.passes_and_minibatches
        if count == 1:
            return [batch] * passes
        split = torch.arange(len(batch.prompts)).tensor_split(count)
        parts = [batch.select(torch.isin(batch.group_E, groups).nonzero().squeeze(1)) for groups in split]
        return [part for part in parts if len(part)] * passes

    def _update(self, objective: Objective, minibatch: Batch, rate: float, observe: Observer) -> Updated:
        reference = self.annotator.reference
        return optimizer_step(
            self.models[objective.model],
            self.optimizers[objective.model],
            objective,
            with_weights(self.method, minibatch),
            learning_rate=rate * objective.learning_rate_ratio,
            max_grad_norm=self.settings.max_grad_norm,
            temperature=self.annotator.temperature,
            limits=self.annotator.limits,
            observe=observe,
            reference=None if reference is None else reference.policy,
        )

    def _learning_rate(self, step: int, number: int) -> float:
        """The learning rate of optimizer step ``number``, counted from 0, within training step ``step``."""
        passes, minibatches = self.method.passes_and_minibatches
        per_step = passes * minibatches
        return learning_rate((step - 1) * per_step + number, self.steps * per_step, self.settings)
