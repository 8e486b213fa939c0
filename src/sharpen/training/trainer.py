"""The loop. It knows no method: it draws, annotates, updates, measures and saves, in that order."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sharpen.data.collate import collate
from sharpen.errors import CheckpointError, NonFiniteError, RecipeError
from sharpen.evaluation.estimators import Estimate
from sharpen.functional.losses.kl import k3
from sharpen.methods import Method, Objective, Role
from sharpen.models.model import Model
from sharpen.rollout.collector import LocalCollector
from sharpen.rollout.engine import Engine
from sharpen.rollout.sources import Collected
from sharpen.runs.checkpoint import checkpoint_path, load_optimizer, load_state, prune, save_checkpoint
from sharpen.runs.folder import RunFolder
from sharpen.runs.loggers import MetricLogger
from sharpen.suggest import did_you_mean
from sharpen.training.annotate import Annotator, finite
from sharpen.training.metrics import Metrics, TokenStats, rollout_metrics
from sharpen.training.optimizer import learning_rate, make_optimizer
from sharpen.training.score_normalisation import ScoreNormalisation, best_to_normalise
from sharpen.training.settings import CheckpointSettings, OptimizerSettings, TrainingSettings
from sharpen.training.update import Updated, optimizer_step, with_weights
from sharpen.types import Annotation, Batch, Group


class Trainer:
    """One run: its models, optimizers and collector, and the step that it has reached."""

    def __init__(
        self,
        method: Method,
        folder: RunFolder,
        *,
        models: Mapping[Role, Model],
        annotator: Annotator,
        engine: Engine | None,
        collector: LocalCollector,
        held_out: Callable[[], Mapping[str, Estimate]] | None,
        score_normalisation: ScoreNormalisation | None,
        loggers: Sequence[MetricLogger],
        say: Callable[[str], None],
        fingerprint: dict[str, Any],
        training: TrainingSettings,
        optimizer: OptimizerSettings,
        checkpoint: CheckpointSettings,
        completion_limit: int,
        evaluate_every: int,
        samples_every: int,
    ) -> None:
        """``evaluate_every`` and ``samples_every`` count steps, 0 being never; ``completion_limit`` counts tokens."""
        self.method = method
        self.folder = folder
        self.models = models
        self.annotator = annotator
        self.engine = engine
        self.collector = collector
        self.held_out = held_out
        self.score_normalisation = score_normalisation
        self.loggers = loggers
        self.say = say
        self.fingerprint = fingerprint
        self.training, self.optimizer, self.checkpoint = training, optimizer, checkpoint
        self.completion_limit, self.evaluate_every, self.samples_every = completion_limit, evaluate_every, samples_every
        self.source = self.method.source()
        self.objectives = self.method.objectives()
        self.main = self.objectives[0].model
        self.optimizers = {role: make_optimizer(model.parameters(), optimizer) for role, model in models.items()}
        self.coefficients = self.method.coefficients()
        self.levels = {name: coefficient.start for name, coefficient in self.coefficients.items()}
        self.step = 0
        self.best: dict[str, float] | None = None
        self.shifted_by: float | None = None
        self.stop_requested = False
        self.until: int | None = None
        self.saving = False
        self._saved_s = time.monotonic()
        self._began = self._position()
        self._warned: set[str] = set()

    @property
    def model(self) -> Model:
        """The model that the run makes."""
        return self.models[self.main]

    def run(self) -> None:
        """Train to the last step, or ``until`` an earlier one. Ends early where ``stop_requested`` is set meanwhile.

        At its end there is a checkpoint. Raises `NonFiniteError` where something in a step is no finite number; there
        is then a checkpoint of the step before, unless an update had changed the weights.
        """
        self._saved_s = time.monotonic()
        try:
            self._run()
        except NonFiniteError as error:
            before = self._began["step"]
            there = checkpoint_path(self.folder.checkpoints, before).exists()
            if before and not there and self._began["versions"] == self._versions():
                self.save(self._began)
            raise NonFiniteError(f"step {self.step}: {error}", self.step) from error

    def _run(self) -> None:
        if self.step == 0:
            metrics = self._prepare()
            if self.held_out is not None:
                metrics |= self._evaluate()
            if metrics:
                self._record({"step": 0, **metrics}, save=False)
        while self.step < self.training.steps:
            self._began = self._position()
            self.step += 1
            metrics = self.train_step()
            last = self.step == self.training.steps
            measured = self.held_out is not None and (last or self.step % self.evaluate_every == 0)
            if last and self.score_normalisation is not None:
                metrics |= self.score_normalisation.centre(self.model)
                self.shifted_by = metrics["score/shifted_by"]
            improved = False
            if measured:
                metrics |= self._evaluate()
                improved = self._is_best(metrics)
            due = (self.checkpoint.every and self.step % self.checkpoint.every == 0) or self._minutes_are_over()
            # Read once: a request that comes while this step is recorded is for the next, which then is saved.
            stopping = self.stop_requested or self.step == self.until
            self._record(metrics, save=bool(last or due or improved or stopping))
            if stopping:
                break
        if self.score_normalisation is not None and self.step >= self.training.steps:
            folder = self.folder.checkpoints
            best = best_to_normalise(folder, load_state(checkpoint_path(folder, self.step)))
            if best is not None:
                self.score_normalisation.normalise_saved(best, self.model)

    def train_step(self) -> Metrics:
        """Draw one step's groups, update the models on them, and say in numbers what happened."""
        started = time.perf_counter()
        drawn = self.source.collect(self.collector, self.training.prompts_per_step)
        rolled_out = time.perf_counter()
        batch = self._prepared(drawn.groups)
        stats = TokenStats()
        updates: dict[Role, list[Updated]] = {objective.model: [] for objective in self.objectives}
        for number, minibatch in enumerate(self._minibatches(batch)):
            for objective in self.objectives:
                updates[objective.model].append(self._update(objective, minibatch, number, stats))
            stats.unmoved = False
        reference = self.annotator.reference
        if reference is not None:
            reference.move(self.step)
        if self.engine is not None and any(u.applied for u in updates[self.main]):
            self.engine.publish()
        trained = time.perf_counter()
        if self.samples_every and self.step % self.samples_every == 0 and self.source.on_policy:
            self.folder.write_samples(self.step, [*drawn.groups, *drawn.set_aside])

        tokens = sum(u.tokens for us in updates.values() for u in us)
        count = len(updates[self.main])
        metrics: Metrics = {
            "step": self.step,
            **self._update_metrics(updates),
            "learning_rate": self._learning_rate(count - 1),
            **self.batch_coefficients(),
            **self._drawn_metrics(drawn, batch),
            **(stats.metrics() if tokens else {}),
            **self._moved_metrics(batch),
            "tokens_per_s/training": tokens / (trained - rolled_out),
            **{f"time/{part}_s": seconds for part, seconds in drawn.seconds.items() if seconds},
            "time/training_s": trained - rolled_out,
            "time/step_s": trained - started,
        }
        if rollout_s := drawn.seconds.get("rollout"):
            groups = [*drawn.groups, *drawn.set_aside]
            metrics["tokens_per_s/rollout"] = sum(len(c.token_ids) for g in groups for c in g.completions) / rollout_s
        self._adapt(metrics, len(batch))
        for warning in self.method.warnings(metrics):
            self._warn(warning)
        if len(drawn.groups) < self.training.prompts_per_step:
            self._warn(f"only {len(drawn.groups)} of {self.training.prompts_per_step} prompts to train on")
        return metrics

    def _prepare(self) -> Metrics:
        """What the source has to do once; what it drew for that is written as the samples of step 0."""
        drawn = self.source.prepare(self.collector)
        if not drawn:
            return {}
        if self.samples_every:
            self.folder.write_samples(0, drawn)
        return {**rollout_metrics(drawn, collate(drawn)), "kept": self.collector.groups}

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self.say(f"step {self.step}: {text}")

    def _moved_metrics(self, batch: Batch) -> Metrics:
        """How far the updates of this step have taken the policy, where a penalty is adapted to that."""
        if all(coefficient.measured_by != "kl_old" for coefficient in self.coefficients.values()):
            return {}
        after = self.annotator.annotate(replace(batch, old_logprobs_BT=None), frozenset({"old_logprobs"}), [])
        assert batch.old_logprobs_BT is not None
        assert after.old_logprobs_BT is not None
        moved_BT = k3(batch.old_logprobs_BT, after.old_logprobs_BT)[batch.mask_BT]
        return {"kl_old": moved_BT.double().mean().item()} if len(moved_BT) else {}

    def batch_coefficients(self) -> dict[str, float]:
        """The present strength of each penalty."""
        return {name: c.at(self.step, self.levels[name]) for name, c in self.coefficients.items()}

    def _versions(self) -> dict[str, int]:
        return {role: model.version for role, model in self.models.items()}

    def _position(self) -> dict[str, Any]:
        """What a step has changed before it is done, as JSON: where it stands, and what it has drawn."""
        return {
            "step": self.step,
            "versions": self._versions(),
            "levels": dict(self.levels),
            "collector": self.collector.state(),
        }

    def _minutes_are_over(self) -> bool:
        minutes = self.checkpoint.every_minutes
        return minutes > 0 and time.monotonic() - self._saved_s >= 60 * minutes

    def save(self, position: Mapping[str, Any] | None = None) -> Path:
        """Write a checkpoint of the present position, and remove those that are too many.

        Where ``position`` is given, one of that, with nothing removed: it is written because something went wrong, of
        which older checkpoints may be free.
        """
        self.saving = True
        try:
            path = self._save(position or self._position())
            if position is None and self.until is None:
                self._prune()
        finally:
            self.saving = False
        self._saved_s = time.monotonic()
        return path

    def _save(self, position: Mapping[str, Any]) -> Path:
        state = {
            **position,
            "kept": self.folder.kept_digest(),
            "best": self.best,
            "shifted_by": self.shifted_by,
            "fingerprint": self.fingerprint,
        }
        models = {"" if role == self.main else str(role): model for role, model in self.models.items()}
        reference = self.annotator.reference
        if reference is not None and reference.moves:
            models["reference"] = reference.policy
        optimizers = {"" if role == self.main else str(role): o for role, o in self.optimizers.items()}
        return save_checkpoint(self.folder.checkpoints, position["step"], models, optimizers, state)

    def _prune(self) -> None:
        prune(
            self.folder.checkpoints,
            self.checkpoint.keep,
            int(self.best["step"]) if self.best else None,
        )

    def load(self, checkpoint: Path) -> None:
        """Go on from a checkpoint whose weights the models already have."""
        state = load_state(checkpoint)
        for role, optimizer in self.optimizers.items():
            load_optimizer(checkpoint, "" if role == self.main else str(role), optimizer)
        if state["kept"] != self.folder.kept_digest():
            raise CheckpointError(f"{self.folder.kept}: not what it was when {checkpoint} was written")
        self.collector.load(state["collector"], None if state["kept"] is None else self.folder.read_kept())
        self.step, self.best, self.levels = state["step"], state["best"], state["levels"]
        for role, model in self.models.items():
            model.version = state["versions"][role]

    def _prepared(self, groups: list[Group]) -> Batch:
        """The batch of a rollout with everything that its optimizer steps need."""
        method = self.method
        batch = collate(groups, completion_limit=self.completion_limit)
        batch = replace(batch, coefficients=self.batch_coefficients())
        batch = self.annotator.annotate(batch, method.annotations, groups)
        targets_BT = method.targets(batch)
        batch = replace(
            batch,
            advantages_BT=method.advantages(batch).float(),
            targets_BT=None if targets_BT is None else targets_BT.float(),
            mask_BT=method.loss_mask(batch),
        )
        wanted = frozenset[Annotation]().union(*(o.annotations for o in self.objectives))
        if method.passes_and_minibatches == (1, 1):
            # Within the only update of a rollout, the policy is the one that the rollout began with.
            wanted -= {"old_logprobs"}
        assert batch.advantages_BT is not None
        finite(batch.advantages_BT, "advantages, made of the rewards,")
        every = any(o.without_advantage for o in self.objectives if "old_logprobs" in o.annotations)
        has_gradient_B = batch.advantages_BT.ne(0).any(dim=1) | every
        return self.annotator.annotate(batch, wanted, groups, has_gradient_B)

    def _update(self, objective: Objective, minibatch: Batch, number: int, stats: TokenStats) -> Updated:
        reference = self.annotator.reference
        return optimizer_step(
            self.models[objective.model],
            self.optimizers[objective.model],
            objective,
            with_weights(self.method, minibatch),
            learning_rate=self._learning_rate(number) * objective.learning_rate_ratio,
            max_grad_norm=self.optimizer.max_grad_norm,
            temperature=self.annotator.temperature,
            limits=self.annotator.limits,
            stats=stats,
            reference=None if reference is None else reference.policy,
        )

    def _minibatches(self, batch: Batch) -> list[Batch]:
        """The batches of the optimizer steps, divided by prompts, each pass in the same order."""
        passes, count = self.method.passes_and_minibatches
        if count == 1:
            return [batch] * passes
        divided = torch.arange(len(batch.prompts)).tensor_split(count)
        parts = [batch.select(torch.isin(batch.group_B, groups).nonzero().squeeze(1)) for groups in divided]
        return [part for part in parts if len(part)] * passes

    def _learning_rate(self, number: int) -> float:
        passes, minibatches = self.method.passes_and_minibatches
        per_step = passes * minibatches
        update = (self.step - 1) * per_step + number
        return learning_rate(update, self.training.steps * per_step, self.optimizer)

    def _update_metrics(self, updates: Mapping[Role, Sequence[Updated]]) -> Metrics:
        metrics: Metrics = {}
        for role, done in updates.items():
            prefix = "" if role == self.main else f"{role}/"
            metrics[f"{prefix}loss"] = sum(u.loss for u in done) / len(done)
            metrics[f"{prefix}grad_norm"] = sum(u.grad_norm for u in done) / len(done)
        metrics["updates/applied"] = sum(u.applied for u in updates[self.main])
        metrics["updates/skipped"] = sum(not u.applied for u in updates[self.main])
        return metrics

    def _drawn_metrics(self, drawn: Collected, batch: Batch) -> Metrics:
        if not drawn.set_aside:
            return rollout_metrics(drawn.groups, batch)
        groups = [*drawn.groups, *drawn.set_aside]
        return {
            **rollout_metrics(groups, collate(groups)),
            "groups/set_aside": len(drawn.set_aside) / len(groups),
            "groups/trained": len(drawn.groups),
        }

    def _adapt(self, metrics: Metrics, samples: int) -> None:
        for name, coefficient in self.coefficients.items():
            if coefficient.measured_by in metrics:
                measured = metrics[coefficient.measured_by]
                self.levels[name] = coefficient.adapted(self.levels[name], measured, samples)

    def _evaluate(self) -> Metrics:
        assert self.held_out is not None
        started = time.perf_counter()
        metrics: Metrics = {}
        for name, estimate in self.held_out().items():
            metrics[f"held_out/{name}"] = estimate.mean
            if estimate.low == estimate.low:
                metrics[f"held_out/{name}_low"] = estimate.low
                metrics[f"held_out/{name}_high"] = estimate.high
        wanted = self.checkpoint.best
        if wanted is not None and f"held_out/{wanted}" not in metrics:
            known = [name.removeprefix("held_out/") for name in metrics]
            raise RecipeError(
                f"checkpoint.best: `{wanted}` is not measured.{did_you_mean(wanted, known)} Known: {', '.join(known)}"
            )
        metrics["time/evaluation_s"] = time.perf_counter() - started
        return metrics

    def _is_best(self, metrics: Metrics) -> bool:
        wanted = self.checkpoint.best
        if wanted is None:
            return False
        value = metrics[f"held_out/{wanted}"]
        # Of a loss the least is the best, of all else the most.
        if self.best is not None and (value >= self.best["value"] if wanted == "loss" else value <= self.best["value"]):
            return False
        self.best = {"step": self.step, "value": value}
        return True

    def _record(self, metrics: Metrics, *, save: bool) -> None:
        self.folder.append_metrics(metrics)
        for logger in self.loggers:
            logger.log(self.step, metrics)
        if save:
            self.save()
