"""The loop. It knows no method: it draws, annotates, updates, measures and saves, in that order."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from sharpen.config import Recipe
from sharpen.evaluation.runner import Evaluation
from sharpen.models.policy import Policy
from sharpen.rollout.engine import Engine
from sharpen.training.assemble import assemble
from sharpen.training.checkpoint import load_optimizer, load_state, prune, save_checkpoint
from sharpen.training.loggers import MetricLogger
from sharpen.training.metrics import Metrics, TokenStats, rollout_metrics
from sharpen.training.optimizer import learning_rate, make_optimizer
from sharpen.training.run_folder import RunFolder
from sharpen.training.update import Limits, all_logprobs, optimizer_step
from sharpen.training.world import LocalWorld
from sharpen.types import Batch


class Trainer:
    """One run: its policy, optimizer and world, and the step that it has reached."""

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        *,
        policy: Policy,
        reference: Policy | None,
        engine: Engine,
        world: LocalWorld,
        held_out: Callable[[], Evaluation] | None,
        loggers: Sequence[MetricLogger],
        identity: dict[str, Any],
    ) -> None:
        self.recipe = recipe
        self.method = recipe.method
        self.folder = folder
        self.policy = policy
        self.reference = reference
        self.engine = engine
        self.world = world
        self.held_out = held_out
        self.loggers = loggers
        self.identity = identity
        self.source = self.method.source()
        self.optimizer = make_optimizer(policy.model.parameters(), recipe.optimizer)
        self.limits = Limits(recipe.training.tokens_per_microbatch, recipe.training.shared_prompt)
        self.step = 0
        self.best: dict[str, float] | None = None
        self.stop_requested = False

    def run(self) -> None:
        """Train to the last step. Ends early, with a checkpoint, where ``stop_requested`` is set meanwhile."""
        recipe = self.recipe
        if self.step == 0 and self.held_out is not None:
            self._record({"step": 0, **self._evaluate()}, save=False)
        while self.step < recipe.training.steps:
            self.step += 1
            metrics = self.train_step()
            last = self.step == recipe.training.steps
            improved = False
            if self.held_out is not None and (last or self.step % recipe.evaluation.every == 0):
                metrics |= self._evaluate()
                improved = self._is_best(metrics)
            due = recipe.checkpoint.every and self.step % recipe.checkpoint.every == 0
            # Read once: a request that comes while this step is recorded is for the next, which then is saved.
            stopping = self.stop_requested
            self._record(metrics, save=bool(last or due or improved or stopping))
            if stopping:
                return

    def train_step(self) -> Metrics:
        """Draw one step's groups, update the policy on them, and say in numbers what happened."""
        settings, method = self.recipe.training, self.method
        self.world.seconds = {"rollout": 0.0, "reward": 0.0}
        started = time.perf_counter()
        groups = self.source.draw(self.world, settings.prompts_per_step)
        drawn = time.perf_counter()
        batch = assemble(groups, scored=method.needs_reward)
        batch = replace(batch, advantages_BT=method.advantages(batch).float())
        stats, updates, tokens = TokenStats(), [], 0
        for number, minibatch in enumerate(self._minibatches(self._annotate(batch))):
            updated = optimizer_step(
                self.policy,
                self.optimizer,
                method,
                minibatch,
                learning_rate=self._learning_rate(number),
                max_grad_norm=self.recipe.optimizer.max_grad_norm,
                temperature=self._temperature,
                limits=self.limits,
                stats=stats,
            )
            updates.append(updated)
            tokens += updated.tokens
        if any(u.applied for u in updates):
            self.engine.publish()
        trained = time.perf_counter()
        if self.recipe.log.samples_every and self.step % self.recipe.log.samples_every == 0 and groups[0].scores:
            self.folder.write_samples(self.step, groups)

        count = len(updates)
        completion_tokens = sum(len(c.token_ids) for g in groups for c in g.completions)
        metrics: Metrics = {
            "step": self.step,
            "loss": sum(u.loss for u in updates) / count,
            "grad_norm": sum(u.grad_norm for u in updates) / count,
            "updates/applied": sum(u.applied for u in updates),
            "updates/skipped": sum(not u.applied for u in updates),
            "learning_rate": self._learning_rate(count - 1),
            **rollout_metrics(groups, batch),
            **(stats.metrics() if tokens else {}),
            "tokens_per_s/training": tokens / (trained - drawn),
            **{f"time/{part}_s": seconds for part, seconds in self.world.seconds.items() if seconds},
            "time/training_s": trained - drawn,
            "time/step_s": trained - started,
        }
        if rollout_s := self.world.seconds["rollout"]:
            metrics["tokens_per_s/rollout"] = completion_tokens / rollout_s
        return metrics

    def save(self) -> Path:
        state = {
            "step": self.step,
            "policy_version": self.policy.version,
            "world": self.world.state(),
            "best": self.best,
            "identity": self.identity,
        }
        path = save_checkpoint(self.folder.checkpoints, self.step, self.policy, self.optimizer, state)
        prune(
            self.folder.checkpoints,
            self.recipe.checkpoint.keep,
            int(self.best["step"]) if self.best else None,
        )
        return path

    def load(self, checkpoint: Path) -> None:
        """Go on from a checkpoint whose weights the policy already has."""
        state = load_state(checkpoint)
        load_optimizer(checkpoint, self.optimizer)
        self.world.load(state["world"])
        self.step, self.best = state["step"], state["best"]
        self.policy.version = state["policy_version"]

    @property
    def _temperature(self) -> float:
        """Log-probabilities are those of the distribution that is sampled from; data was sampled by nobody."""
        return self.recipe.rollout.temperature if self.source.reads == "prompts" else 1.0

    def _annotate(self, batch: Batch) -> Batch:
        """Add the log-probabilities that the method compares with, and no others."""
        method = self.method
        if self.reference is not None:
            reference = all_logprobs(self.reference, batch, self._temperature, self.limits)
            batch = replace(batch, ref_logprobs_BT=reference)
        if method.needs_old_logprobs and method.passes_and_minibatches != (1, 1):
            assert batch.advantages_BT is not None
            needed_B = (batch.advantages_BT != 0).any(dim=1) | method.trains_without_advantage
            old_BT = torch.zeros(batch.tokens_BT.shape)
            if (batch.mask_BT & needed_B[:, None]).any():
                part = batch.select(needed_B.nonzero().squeeze(1))
                old_BT[needed_B] = all_logprobs(self.policy, part, self._temperature, self.limits)
            batch = replace(batch, old_logprobs_BT=old_BT)
        return batch

    def _minibatches(self, batch: Batch) -> list[Batch]:
        """The batches of the optimizer steps, divided by prompts, each pass in the same order."""
        passes, count = self.method.passes_and_minibatches
        if count == 1:
            return [batch] * passes
        divided = torch.arange(len(batch.prompts)).tensor_split(count)
        parts = [batch.select(torch.isin(batch.group_B, groups).nonzero().squeeze(1)) for groups in divided]
        return parts * passes

    def _learning_rate(self, number: int) -> float:
        passes, minibatches = self.method.passes_and_minibatches
        per_step = passes * minibatches
        update = (self.step - 1) * per_step + number
        return learning_rate(update, self.recipe.training.steps * per_step, self.recipe.optimizer)

    def _evaluate(self) -> Metrics:
        assert self.held_out is not None
        started = time.perf_counter()
        measures = self.held_out().measures
        metrics: Metrics = {}
        for name, estimate in measures.items():
            metrics[f"held_out/{name}"] = estimate.mean
            if estimate.low == estimate.low:
                metrics[f"held_out/{name}_low"] = estimate.low
                metrics[f"held_out/{name}_high"] = estimate.high
        metrics["time/evaluation_s"] = time.perf_counter() - started
        return metrics

    def _is_best(self, metrics: Metrics) -> bool:
        if self.recipe.checkpoint.best is None:
            return False
        value = metrics[f"held_out/{self.recipe.checkpoint.best}"]
        if self.best is not None and value <= self.best["value"]:
            return False
        self.best = {"step": self.step, "value": value}
        return True

    def _record(self, metrics: Metrics, *, save: bool) -> None:
        self.folder.append_metrics(metrics)
        for logger in self.loggers:
            logger.log(self.step, metrics)
        if save:
            self.save()
