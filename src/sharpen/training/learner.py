"""Trains the models on one step's groups: annotate, compute advantages, accumulate gradients, step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch

from sharpen.batch import Batch, Outputs
from sharpen.data.collate import collate
from sharpen.errors import NonFiniteError
from sharpen.functional.losses.kl import k3
from sharpen.methods import LossTerms, Method, Objective, Role
from sharpen.models.model import Model
from sharpen.models.policy import Policy
from sharpen.rollout.engine import Snapshot
from sharpen.training.annotate import Annotator
from sharpen.training.coefficients import Coefficients
from sharpen.training.method_batch import with_advantages
from sharpen.training.metrics import Metrics, Updated, update_metrics
from sharpen.training.optimizer import learning_rate, make_optimizer
from sharpen.training.second_source import GIVEN, SecondSource, in_parts
from sharpen.training.settings import OptimizerSettings
from sharpen.training.token_record import TokenRecord, token_rows
from sharpen.training.token_stats import TokenStats
from sharpen.training.update import Accumulated, Observer, accumulate_gradient, with_weights
from sharpen.training.versions import on_policy, refuse_stale, refuse_without_logprobs, staleness
from sharpen.types import Group

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class StepReport:
    """What one step did: its batch, the updates of each model, and the metrics of its tokens.

    ``token_rows`` has what was computed for each token of each trajectory, if that was recorded.
    """

    batch: Batch
    updates: Mapping[Role, Sequence[Updated]]
    learning_rate: float
    metrics: Metrics
    token_rows: Sequence[Mapping[str, Any]] | None = None

    @property
    def tokens(self) -> int:
        """Tokens computed in the forward and backward passes of all updates, prefixes included."""
        return sum(u.tokens for updates in self.updates.values() for u in updates)


class Learner:
    """The trained models with their optimizers and the method's adaptive coefficients.

    ``version`` counts the training steps done. With several ranks there is a learner on each, and all make the same
    calls: each computes its share of every batch.
    """

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
        self.version = 0
        self.objectives = method.objectives()
        self.main = self.objectives[0].model
        self.optimizers = {role: make_optimizer(model.parameters(), optimizer) for role, model in models.items()}
        self.updates: dict[Role, int] = dict.fromkeys(models, 0)
        self.coefficients = Coefficients(method.coefficients())
        mixed = method.mixed()
        self.second = None if mixed is None else SecondSource(mixed, annotator)

    def learn(
        self, groups: Sequence[Group], step: int, mixed: Sequence[Group] = (), *, record_tokens: bool = False
    ) -> StepReport:
        """Update every model on the groups of ``step``, counted from 1, then move the reference and adapt coefficients.

        ``mixed`` are the groups of the method's second source. With ``record_tokens`` the report has the rows of their
        tokens; the training is the same, bit for bit.
        """
        batch = self.annotate(groups, step)
        record = None
        if record_tokens:
            batch = TokenRecord.numbered(batch)
            record = TokenRecord(batch, has_coefficient=any("logprobs" in o.needs for o in self.objectives))
        fresh, behind = on_policy(batch, self.version), staleness(batch, self.version)
        stats = TokenStats()
        updates: dict[Role, list[Updated]] = {objective.model: [] for objective in self.objectives}
        minibatches = self._minibatches(batch)
        second = self.second.batches(mixed, len(minibatches), step) if self.second is not None and mixed else []
        of_second: list[Accumulated] = []
        for number, minibatch in enumerate(minibatches * self.method.passes_and_minibatches[0]):
            observe: Observer = partial(stats.add, first_update=number == 0, on_policy=fresh)
            if record is not None:
                observe = self._recorded(record, minibatch, observe, first_pass=number < len(minibatches))
            for objective in self.objectives:
                rate = self._learning_rate(step, number) * objective.learning_rate_ratio
                parts = [self.forward_backward(objective, minibatch, observe, keep_gradients=record is not None)]
                if self.second is not None and second and objective.model == self.main:
                    share = second[number % len(minibatches)]
                    if len(share):
                        of_second.append(self._add_second(self.second, share))
                        parts.append(of_second[-1])
                updates[objective.model].append(self.step(objective.model, parts, rate))
        reference = self.annotator.reference
        if reference is not None:
            reference.move(step)
        self._at_version(step)
        computed = any(u.tokens for done in updates.values() for u in done)
        last_rate = self._learning_rate(step, len(updates[self.main]) - 1)
        metrics = stats.metrics(self.annotator.ranks.join) if computed else {}
        metrics |= behind | self._policy_shift(batch)
        if of_second:
            metrics["mixed/loss"] = self._mean_loss(of_second)
        self.coefficients.adapt(update_metrics(updates, self.main) | metrics, len(batch))
        rows = None if record is None else token_rows(record.columns(self.annotator.ranks), batch)
        return StepReport(batch, updates, last_rate, metrics, rows)

    def _recorded(self, record: TokenRecord, minibatch: Batch, observe: Observer, *, first_pass: bool) -> Observer:
        """An observer that records tokens as well."""
        if first_pass:
            record.update(minibatch)

        def both(batch: Batch, outputs: Outputs, terms: LossTerms) -> None:
            observe(batch, outputs, terms)
            record.add(batch, outputs, terms, first_pass=first_pass)

        return both

    def annotate(self, groups: Sequence[Group], step: int) -> Batch:
        """The batch of a rollout with everything that its optimizer steps need.

        Raises:
            StaleError: an older version of the policy drew tokens, and the method does not correct for that, or
                cannot, because their log-probabilities are missing.
        """
        method = self.method
        batch = collate(groups, completion_limit=self.completion_limit)
        batch = replace(batch, coefficients=self.coefficients.at(step))
        refuse_stale(batch, self.version, method)
        refuse_without_logprobs(batch, groups, method)
        if method.old_from == "rollout":
            batch = batch.with_streams(old_logprobs=batch["rollout_logprobs"])
        batch = with_advantages(method, self.annotator, batch, groups)
        wanted = frozenset[str]().union(*(o.streams for o in self.objectives))
        if method.passes_and_minibatches == (1, 1):
            # During the only update the policy is still that of the start of the step.
            wanted -= {"old_logprobs"}
        every = any(o.without_advantage for o in self.objectives if "old_logprobs" in o.streams)
        has_gradient_E = batch["advantages"].ne(0).any(dim=1) | every
        return self.annotator.annotate(batch, wanted, groups, has_gradient_E)

    def forward_backward(
        self,
        objective: Objective,
        minibatch: Batch,
        observe: Observer | None = None,
        *,
        scale: float = 1.0,
        temperature: float | None = None,
        keep_gradients: bool = False,
    ) -> Accumulated:
        """Add the gradient of ``scale`` times the objective's loss on an optimizer step's batch to the parameters.

        ``temperature`` is that of the batch's tokens, None for that of the rollout; ``keep_gradients`` as in
        `accumulate_gradient`.
        """
        annotator = self.annotator
        return accumulate_gradient(
            self.models[objective.model],
            objective,
            minibatch if "weights" in minibatch else with_weights(self.method, minibatch),
            annotator.temperature if temperature is None else temperature,
            annotator.limits,
            observe,
            annotator.named(objective.against) if "exact_kl" in objective.needs else None,
            scale=scale,
            share=(annotator.ranks.rank, annotator.ranks.count),
            keep_gradients=keep_gradients,
        )

    def step(self, role: Role, parts: Sequence[Accumulated], rate: float) -> Updated:
        """Sum the gradient over the ranks, clip it, and apply it with this learning rate.

        ``parts`` are what `forward_backward` added since the last step. A step without any gradient changes nothing,
        not even optimizer state.

        Raises:
            NonFiniteError: the loss or the gradient is NaN or infinite; weights and optimizer state are unchanged.
        """
        model, optimizer = self.models[role], self.optimizers[role]
        if all(part.tokens == 0 for part in parts):
            optimizer.zero_grad(set_to_none=True)
            return Updated(0.0, 0.0, applied=False, tokens=0)
        trained = [p for p in model.parameters() if p.grad is not None]
        gradients = [p.grad for p in trained if p.grad is not None]
        loss = torch.stack([part.loss for part in parts]).sum()
        self.annotator.ranks.sum_([*gradients, loss])
        norm = torch.nn.utils.get_total_norm(gradients)
        # One transfer for both.
        norm_value, loss_value = torch.stack([norm.double(), loss]).tolist()
        if not (math.isfinite(norm_value) and math.isfinite(loss_value)):
            raise NonFiniteError(
                f"the {role}'s gradient norm is {norm_value:g}, its loss {loss_value:g}. Lower "
                "optimizer.learning_rate or optimizer.max_grad_norm, or look for extremely large rewards"
            )
        if self.settings.max_grad_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(trained, self.settings.max_grad_norm, norm)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        self.updates[role] += 1
        return Updated(loss_value, norm_value, applied=True, tokens=sum(part.tokens for part in parts))

    def publish(self) -> Snapshot:
        """The policy's present weights, for an engine."""
        policy = self.models["policy"]
        assert isinstance(policy, Policy)
        return Snapshot(self.version, policy)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds beside weights and optimizers."""
        return {"updates": dict(self.updates), "coefficients": dict(self.coefficients.values)}

    def load(self, state: Mapping[str, Any], step: int) -> None:
        """Go on after ``step``; the models and optimizers have their weights and state already.

        Raises ValueError if ``state`` is that of other models or coefficients.
        """
        updates, coefficients = state["updates"], state["coefficients"]
        if updates.keys() != self.updates.keys() or coefficients.keys() != self.coefficients.values.keys():
            raise ValueError(f"updates of {', '.join(updates)} and coefficients {', '.join(coefficients)}")
        self._at_version(step)
        self.updates = dict(updates)
        self.coefficients.values = dict(coefficients)

    def _policy_shift(self, batch: Batch) -> Metrics:
        """``kl_old``, KL(π_old ‖ π) after the updates on ``batch``, if a coefficient is adapted to it."""
        if not self.coefficients.measured_by("kl_old"):
            return {}
        before_ET = batch["old_logprobs"]
        batch = replace(batch, streams=batch.streams.without("old_logprobs"))
        after_ET = self.annotator.annotate(batch, frozenset({"old_logprobs"}), [])["old_logprobs"]
        kl_N = k3(before_ET, after_ET)[batch.mask_ET]
        return {"kl_old": kl_N.double().mean().item()} if len(kl_N) else {}

    def _at_version(self, version: int) -> None:
        self.version = version
        for model in self.models.values():
            model.version = version

    def models_to_save(self) -> dict[str, Model]:
        """By subfolder of a checkpoint; the main model and its optimizer are named ``""``."""
        models = self._by_folder(self.models)
        reference = self.annotator.reference
        if reference is not None and reference.moves:
            models["reference"] = reference.policy
        return models

    def optimizers_to_save(self) -> dict[str, torch.optim.AdamW]:
        return self._by_folder(self.optimizers)

    def checkpoint_bytes(self) -> int:
        """The size of the weights and optimizer states in a checkpoint; Adam keeps two numbers for each that it trains.

        Weights that an adapter builds on are not saved.
        """
        saved = [
            weight
            for model in self.models_to_save().values()
            for weight in (model.root.parameters() if model.adapter is None else model.parameters())
        ]
        trained = [weight for model in self.models.values() for weight in model.parameters()]
        return sum(w.numel() * w.element_size() for w in (*saved, *trained, *trained))

    def _by_folder(self, by_role: Mapping[Role, T]) -> dict[str, T]:
        return {"" if role == self.main else str(role): value for role, value in by_role.items()}

    def _minibatches(self, batch: Batch) -> list[Batch]:
        """The batch of each optimizer step of a pass with its weights: split by groups."""
        parts = in_parts(batch, self.method.passes_and_minibatches[1])
        return [with_weights(self.method, part) for part in parts if len(part)]

    def _add_second(self, second: SecondSource, batch: Batch) -> Accumulated:
        return self.forward_backward(second.objective, batch, scale=second.mixed.coefficient, temperature=GIVEN)

    def _mean_loss(self, parts: Sequence[Accumulated]) -> float:
        """Of several updates, before it was scaled."""
        losses_M = torch.stack([part.unscaled for part in parts])
        self.annotator.ranks.sum_([losses_M])
        return losses_M.mean().item()

    def _learning_rate(self, step: int, number: int) -> float:
        """The learning rate of optimizer step ``number``, counted from 0, within training step ``step``."""
        passes, minibatches = self.method.passes_and_minibatches
        per_step = passes * minibatches
        return learning_rate((step - 1) * per_step + number, self.steps * per_step, self.settings)
