"""The training loop. It never depends on which method runs: sample, learn, measure, save."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sharpen.data.collate import collate
from sharpen.errors import CheckpointError, DrawnRowError, NonFiniteError
from sharpen.evaluation.runner import Evaluation
from sharpen.methods import Method, Role
from sharpen.models.model import Model
from sharpen.rollout.collector import LocalCollector
from sharpen.rollout.engine import Engine
from sharpen.rollout.sources import Collected
from sharpen.runs.checkpoint import save_checkpoint
from sharpen.runs.checkpoint_list import checkpoint_path, has_checkpoint, prune
from sharpen.runs.checkpoint_state import fitting, load_optimizer, load_state, load_text
from sharpen.runs.folder import RunFolder
from sharpen.runs.logging import Loggers
from sharpen.training.ahead import RolloutsAhead, pending_from_json, pending_to_json
from sharpen.training.annotate import Annotator
from sharpen.training.evaluation import HeldOutEvaluation
from sharpen.training.learner import Learner
from sharpen.training.metrics import Metrics, rollout_times, sampling_metrics, update_metrics
from sharpen.training.sample_writer import SampleWriter
from sharpen.training.score_normalisation import ScoreNormalisation, best_to_normalise
from sharpen.training.settings import CheckpointSettings, OptimizerSettings, TrainingSettings
from sharpen.types import Group

OnStep = Callable[[int, Mapping[str, float]], object]
"""Called with each step and its metrics, once they are recorded; False stops the run."""

OnRecorded = Callable[[int, Mapping[str, float], Sequence[Group]], object]
"""Is shown each step once it is recorded, with its metrics and the groups that it drew."""

PENDING = "pending.json"
"""The file of a checkpoint with the batches that are drawn and not yet trained on."""


class Trainer:
    """One run: where its completions come from, what learns from them, and the step that it has reached."""

    def __init__(
        self,
        method: Method,
        folder: RunFolder,
        *,
        models: Mapping[Role, Model],
        annotator: Annotator,
        engine: Engine | None,
        collector: LocalCollector,
        mixed_collector: LocalCollector | None,
        held_out: Callable[[], Evaluation] | None,
        score_normalisation: ScoreNormalisation | None,
        loggers: Loggers,
        say: Callable[[str], None],
        fingerprint: dict[str, Any],
        training: TrainingSettings,
        optimizer: OptimizerSettings,
        checkpoint: CheckpointSettings,
        completion_limit: int,
        evaluate_every: int,
        samples: SampleWriter,
        lag: int,
    ) -> None:
        """``evaluate_every`` counts steps, 0 meaning never; ``completion_limit`` counts tokens.

        ``mixed_collector`` gives the groups of the method's second source; ``lag`` counts versions.
        """
        self.method = method
        self.folder = folder
        self.engine = engine
        self.collector, self.mixed_collector = collector, mixed_collector
        self.score_normalisation = score_normalisation
        self.loggers = loggers
        self.say = say
        self.fingerprint = fingerprint
        self.training, self.checkpoint, self.samples = training, checkpoint, samples
        self.source = method.source()
        self.ahead = RolloutsAhead(
            self.source, collector, prompts=training.prompts_per_step, steps=training.steps, lag=lag
        )
        self.learner = Learner(
            method, models, annotator, optimizer, steps=training.steps, completion_limit=completion_limit
        )
        self.evaluation = (
            None if held_out is None else HeldOutEvaluation(held_out, every=evaluate_every, best_by=checkpoint.best)
        )
        self.step = 0
        self.best: dict[str, float] | None = None
        self.shifted_by: float | None = None
        self.stop_requested = False
        self.stop_at: int | None = None
        self.on_step: OnStep | None = None
        self.on_recorded: OnRecorded | None = None
        self.saving = False
        self._saved_s = time.monotonic()
        self._step_start = self._progress()
        self._warned: set[str] = set()
        self._drawn: Sequence[Group] = ()

    @property
    def model(self) -> Model:
        """The model that the run produces."""
        return self.learner.models[self.learner.main]

    def run(self) -> None:
        """Train to the last step, or to step ``stop_at``. Stops after the current step once ``stop_requested`` is set.

        Always ends with a checkpoint. Raises `NonFiniteError` if a number of a step is NaN or infinite, and
        `DrawnRowError` if a row that is drawn cannot be used; the step before then has a checkpoint, unless an update
        had already changed the weights.
        """
        self._saved_s = time.monotonic()
        try:
            self._run()
        except NonFiniteError as error:
            self._save_step_before()
            raise NonFiniteError(f"step {self.step}: {error}", self.step) from error
        except DrawnRowError as error:
            self._save_step_before()
            raise DrawnRowError(f"step {self.step}: {error}") from error

    def _save_step_before(self) -> None:
        """Make sure that the step before has a checkpoint, if its weights are still there."""
        before = self._step_start["step"]
        exists = has_checkpoint(self.folder.checkpoints, before)
        if before and not exists and self._step_start["updates"] == self.learner.updates:
            self.save(self._step_start)

    def _run(self) -> None:
        if self.step == 0:
            metrics = self._prepare()
            if self.evaluation is not None:
                metrics |= self._measured(self.evaluation)
                self.evaluation.check(metrics)
            if metrics:
                self._record({"step": 0, **metrics})
        while self.step < self.training.steps:
            self._step_start = self._progress()
            self.step += 1
            metrics = self.train_step()
            last = self.step == self.training.steps
            if last and self.score_normalisation is not None:
                metrics |= self.score_normalisation.centre(self.model)
                self.shifted_by = metrics["score/shifted_by"]
            improved = False
            if self.evaluation is not None and (last or self.step % self.evaluation.every == 0):
                metrics |= self._measured(self.evaluation)
                improved = self._improved(self.evaluation, metrics)
            due = self._checkpoint_due()
            # Read once: a request that arrives while this step is recorded applies to the next step, which then saves.
            stopping = self.stop_requested or self.step == self.stop_at
            self._record(metrics)
            saved = last or due or improved or stopping
            if saved:
                self.save()
            if self._told_to_stop(metrics, saved) or stopping:
                break
        if self.score_normalisation is not None and self.step >= self.training.steps:
            folder = self.folder.checkpoints
            best = best_to_normalise(folder, load_state(checkpoint_path(folder, self.step)))
            if best is not None:
                self.score_normalisation.normalise_saved(best, self.model)

    def train_step(self) -> Metrics:
        """Take one step's groups from the source, update the models on them, and return the metrics."""
        started, left_out = time.perf_counter(), self._left_out()
        drawn, drawn_now = self.ahead.take(self.step)
        mixed = self.mixed_groups()
        left_out = self._left_out() - left_out
        rolled_out = time.perf_counter()
        learned = self.learner.learn(drawn.groups, self.step, mixed, record_tokens=self.samples.tokens_due(self.step))
        if self.engine is not None:
            self.engine.load(self.learner.publish())
        trained = time.perf_counter()
        groups = [*drawn.groups, *drawn.set_aside]
        self.samples.write(self.step, groups, learned.token_rows)
        self._drawn = groups if self.source.on_policy else ()

        metrics: Metrics = {
            "step": self.step,
            **update_metrics(learned.updates, self.learner.main),
            "learning_rate": learned.learning_rate,
            **learned.batch.coefficients,
            **sampling_metrics(drawn, learned.batch, conversations=self.collector.conversations),
            **learned.metrics,
            **({"data/left_out": left_out} if left_out else {}),
            "tokens_per_s/training": learned.tokens / (trained - rolled_out),
            **rollout_times(drawn_now),
            "time/training_s": trained - rolled_out,
            "time/step_s": trained - started,
        }
        for warning in self.method.warnings(metrics):
            self._warn(warning)
        if len(drawn.groups) < self.training.prompts_per_step:
            self._warn(f"only {len(drawn.groups)} of {self.training.prompts_per_step} prompts to train on")
        return metrics

    def _left_out(self) -> int:
        """How many rows that are too long the run has drawn so far."""
        return sum(collector.left_out for collector in (self.collector, self.mixed_collector) if collector is not None)

    def mixed_groups(self) -> list[Group]:
        """The groups that the method's second source adds to a step."""
        mixed = self.method.mixed()
        if mixed is None or self.mixed_collector is None:
            return []
        return mixed.method.source().collect(self.mixed_collector, mixed.prompts_per_step).groups

    def _prepare(self) -> Metrics:
        """Let the source do its one-time work; what it samples for that is written as the samples of step 0."""
        sampled = self.source.prepare(self.collector)
        if not sampled:
            return {}
        self.samples.write_prepared(sampled)
        conversations = self.collector.conversations
        metrics = sampling_metrics(Collected(sampled), collate(sampled), conversations=conversations)
        return {**metrics, "kept": self.collector.groups}

    def _measured(self, evaluation: HeldOutEvaluation) -> Metrics:
        """Measure on held-out rows; the answers to held-out prompts are written beside the samples."""
        metrics, measured = evaluation.measured()
        self.samples.write_held_out(self.step, measured, evaluation.every)
        return metrics

    def _improved(self, evaluation: HeldOutEvaluation, metrics: Metrics) -> bool:
        """Whether this step is the best so far, which is then remembered."""
        value = evaluation.better(metrics, None if self.best is None else self.best["value"])
        if value is None:
            return False
        self.best = {"step": self.step, "value": value}
        return True

    def _record(self, metrics: Metrics) -> None:
        self.folder.append_metrics(metrics)
        self.loggers.log(self.step, metrics)
        if self.on_recorded is not None:
            self.on_recorded(self.step, metrics, self._drawn)
        # Not held through the next rollout.
        self._drawn = ()

    def _told_to_stop(self, metrics: Metrics, saved: bool) -> bool:
        """Call ``on_step``: whether it says to stop. If it does, or raises, this step has a checkpoint."""
        if self.on_step is None:
            return False
        stop = True
        try:
            said = self.on_step(self.step, dict(metrics))
            stop = isinstance(said, bool | np.bool_) and not said
        finally:
            if stop and not saved:
                self.save()
        return stop

    def _warn(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self.say(f"step {self.step}: {text}")

    def _progress(self) -> dict[str, Any]:
        """The part of the run's state that a step changes before its weights; all but ``pending`` is JSON."""
        return {
            "step": self.step,
            **self.learner.state(),
            "collector": self.collector.state(),
            **({} if self.mixed_collector is None else {"mixed_collector": self.mixed_collector.state()}),
            "pending": self.ahead.pending(),
        }

    def _checkpoint_due(self) -> bool:
        every, minutes = self.checkpoint.every, self.checkpoint.every_minutes
        if every and self.step % every == 0:
            return True
        return minutes > 0 and time.monotonic() - self._saved_s >= 60 * minutes

    def save(self, progress: Mapping[str, Any] | None = None) -> Path:
        """Write a checkpoint, and remove the oldest beyond ``checkpoint.keep``.

        With ``progress``, from the start of a step that failed, nothing is removed: older checkpoints may be free of
        what went wrong.
        """
        self.saving = True
        try:
            path = self._save(progress or self._progress())
            if progress is None and self.stop_at is None:
                best = int(self.best["step"]) if self.best else None
                prune(self.folder.checkpoints, self.checkpoint.keep, best)
        finally:
            self.saving = False
        self._saved_s = time.monotonic()
        return path

    def _save(self, progress: Mapping[str, Any]) -> Path:
        pending = progress["pending"]
        texts = {PENDING: pending_to_json(pending, self.collector.prompts)} if pending else {}
        state = {
            **{name: value for name, value in progress.items() if name != "pending"},
            "kept": self.folder.kept_digest(),
            "best": self.best,
            "shifted_by": self.shifted_by,
            "fingerprint": self.fingerprint,
        }
        self.folder.flush()
        models, optimizers = self.learner.models_to_save(), self.learner.optimizers_to_save()
        checkpoints, dtype = self.folder.checkpoints, self.checkpoint.dtype
        return save_checkpoint(
            checkpoints,
            progress["step"],
            models,
            optimizers,
            state,
            texts,
            dtype,
            needed_bytes=self.learner.checkpoint_bytes(),
            say=self.say,
        )

    def load(self, checkpoint: Path, *, drawn_otherwise: bool = False, measured_otherwise: bool = False) -> None:
        """Resume from a checkpoint whose weights the models already have.

        ``drawn_otherwise``: completions are no longer drawn or scored as before, so batches that are drawn ahead are
        drawn anew, and data of another size begins an epoch. ``measured_otherwise``: the best measure so far cannot be
        compared with the next, and is forgotten.
        """
        state = load_state(checkpoint)
        for name, optimizer in self.learner.optimizers_to_save().items():
            load_optimizer(checkpoint, name, optimizer)
        with fitting(checkpoint):
            if state["kept"] != self.folder.kept_digest():
                raise CheckpointError(f"{self.folder.kept}: not what it was when {checkpoint} was written")
            kept = None if state["kept"] is None else self.folder.read_kept()
            self.collector.load(state["collector"], kept, changed=drawn_otherwise)
            if self.mixed_collector is not None and "mixed_collector" in state:
                self.mixed_collector.load(state["mixed_collector"], None, changed=drawn_otherwise)
            self.step, self.best = state["step"], None if measured_otherwise else state["best"]
            self.learner.load(state, self.step)
        if (text := load_text(checkpoint, PENDING)) is not None and not drawn_otherwise:
            file = f"trainer/{PENDING}"
            with fitting(checkpoint, file):
                self.ahead.load(pending_from_json(text, self.collector.prompts, str(checkpoint / file)))
        if self.engine is not None:
            self.engine.load(self.learner.publish())
