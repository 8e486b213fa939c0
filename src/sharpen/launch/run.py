"""From a recipe to a finished run: everything is checked before anything is written, then the trainer goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import Protocol, TypeVar

from sharpen.errors import CheckpointError, NonFiniteError, SharpenError
from sharpen.evaluation.runner import Evaluation
from sharpen.launch.build import built_trainer
from sharpen.launch.held_out import held_out_measurement
from sharpen.launch.inputs import NOTHING_GIVEN, Given, HeldOut, Say, read_inputs
from sharpen.launch.models import load_model, load_reference
from sharpen.models.policy import Policy
from sharpen.recipe.loading import load_recipe
from sharpen.recipe.schema import Recipe
from sharpen.rewards.execution.user_code import describe, ends_program
from sharpen.rollout.local.engine import LocalEngine
from sharpen.runs.checkpoint import (
    checkpoint_path,
    checkpoints,
    load_state,
    prune,
    recover,
    set_aside,
    sound_checkpoints,
)
from sharpen.runs.folder import RunFolder, read_metrics
from sharpen.runs.lock import run_lock
from sharpen.runs.loggers import MetricLogger
from sharpen.runs.lookup import find_model
from sharpen.system.signals import stopped_after_step, stopped_at_once
from sharpen.system.streams import lasting_streams
from sharpen.training.fingerprint import check_models, fingerprint
from sharpen.training.score_normalisation import best_to_normalise
from sharpen.training.trainer import Trainer


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has ended. ``finished`` is False where it was asked to stop before its last step.

    ``signum`` is the signal that asked for it, if one did; it may have come too late to cut anything off.
    """

    path: Path
    model: Path
    finished: bool
    signum: int | None = field(default=None, compare=False)

    def metrics(self) -> list[dict[str, float]]:
        """The rows of ``metrics.jsonl``."""
        return read_metrics(self.path)


def _silent(text: str) -> None:
    return


What = TypeVar("What", contravariant=True)


class _Command(Protocol[What]):
    """What `start` and `resume` have in common."""

    def __call__(
        self,
        what: What,
        /,
        given: Given = NOTHING_GIVEN,
        *,
        loggers: Sequence[MetricLogger] = (),
        say: Say = _silent,
        trust_remote_code: bool = False,
    ) -> Run: ...


def _kept(command: _Command[What]) -> _Command[What]:
    """What a run has done is not lost by a signal, a closed terminal, a `sys.exit` in a reward, or a NaN."""

    @wraps(command)
    def kept(
        what: What,
        /,
        given: Given = NOTHING_GIVEN,
        *,
        loggers: Sequence[MetricLogger] = (),
        say: Say = _silent,
        trust_remote_code: bool = False,
    ) -> Run:
        path = what.run if isinstance(what, Recipe) else Path(str(what))
        with lasting_streams(), stopped_at_once(), _no_other_end():
            try:
                return command(what, given, loggers=loggers, say=say, trust_remote_code=trust_remote_code)
            except NonFiniteError as error:
                # Not the error itself: its frames hold the models, and there may be no room to load them again.
                step, message = error.step, str(error)
            if step is not None:
                _back_to(path, step - 1, given, say, trust_remote_code)
                message = f"{message}; {way_on(path)}"
            raise NonFiniteError(message, step)

    return kept


def _back_to(path: Path, step: int, given: Given, say: Say, trust_remote_code: bool) -> None:
    """See to it that there is a checkpoint of ``step``, by repeating what led there from the latest checkpoint on.

    The trainer has left one where the step after it had not changed the weights yet.
    """
    if step < 1 or checkpoint_path(RunFolder(path).checkpoints, step).exists():
        return
    say(f"the weights of step {step} are gone: repeating what led there, to save them")
    try:
        _resume(path, given, loggers=(), say=say, trust_remote_code=trust_remote_code, until=step)
    # It is said beside the error that led here, which is the one to be raised.
    except SharpenError as error:
        say(f"that has failed: {error}")


@contextmanager
def _no_other_end() -> Iterator[None]:
    """Code of the user's, such as a reward or a logger, may fail, but does not decide with what exit code."""
    try:
        yield
    except BaseException as error:
        if not ends_program(error):
            raise
        raise SharpenError(f"code that was called ends the program with {describe(error)}") from error


@_kept
def start(
    recipe: Recipe,
    given: Given = NOTHING_GIVEN,
    *,
    loggers: Sequence[MetricLogger] = (),
    say: Say = _silent,
    trust_remote_code: bool = False,
) -> Run:
    """Do a run from its beginning. ``trust_remote_code`` lets the model's folder bring code that is then run.

    Raises:
        RunInUseError: another process or thread is writing to that folder.
        SharpenError: something cannot be used; said before the first step where it can be known, with nothing
            written yet.
    """
    with run_lock(recipe.run, say):
        RunFolder.refuse_existing(recipe.run)
        inputs = read_inputs(recipe, given)
        with built_trainer(
            recipe, inputs, loggers=loggers, say=say, trust_remote_code=trust_remote_code, checkpoint=None
        ) as trainer:
            trainer.folder.initialise(recipe.to_yaml())
            return _go(trainer, say)


@_kept
def resume(
    path: Path,
    given: Given = NOTHING_GIVEN,
    *,
    loggers: Sequence[MetricLogger] = (),
    say: Say = _silent,
    trust_remote_code: bool = False,
) -> Run:
    """Go on with a run from its latest sound checkpoint, or from the beginning where it has none.

    Ends with the weights and metrics of a run that was never stopped, timings aside (same machine, same threads).

    Raises:
        RunInUseError: another process or thread is writing this run.
        SharpenError: something cannot be used, as in ``start``; the run stays as it is.
    """
    return _resume(path, given, loggers=loggers, say=say, trust_remote_code=trust_remote_code)


def _resume(
    path: Path,
    given: Given,
    *,
    loggers: Sequence[MetricLogger],
    say: Say,
    trust_remote_code: bool,
    until: int | None = None,
) -> Run:
    """``until``: stop after this step with a checkpoint, and remove none."""
    folder = RunFolder.open(path)
    recipe = load_recipe(folder.recipe)
    recipe = recipe.model_copy(update={"run": path})
    with run_lock(path, say):
        recover(folder.checkpoints)
        checkpoint, damaged = None, []
        for candidate, problem in sound_checkpoints(folder.checkpoints):
            if problem is None:
                checkpoint = candidate
                break
            say(f"passed over a checkpoint: {problem}")
            damaged.append(candidate)
        if checkpoint is None and damaged:
            raise CheckpointError(f"{folder.checkpoints}: no checkpoint is sound; remove the run to start it anew")
        if checkpoint is not None and (state := load_state(checkpoint))["step"] >= recipe.training.steps:
            if not damaged:
                # A run that was killed in its last step may have one more.
                prune(folder.checkpoints, recipe.checkpoint.keep, state["best"] and state["best"]["step"])
            if best_to_normalise(folder.checkpoints, state) is None:
                say(f"{path} is finished: {recipe.training.steps} steps are done")
                return Run(path, checkpoint, finished=True)
        say(f"going on from {checkpoint}" if checkpoint else "no checkpoint yet: starting from the beginning")
        inputs = read_inputs(recipe, given)
        with built_trainer(
            recipe, inputs, loggers=loggers, say=say, trust_remote_code=trust_remote_code, checkpoint=checkpoint
        ) as trainer:
            if checkpoint is not None:
                trainer.load(checkpoint)
            for passed_over in damaged:
                set_aside(passed_over)
            folder.cut_back(trainer.step if checkpoint else -1)
            trainer.stop_at = until
            return _go(trainer, say)


@_no_other_end()
def measure(
    recipe: Recipe,
    held_out: HeldOut,
    model: str | Path,
    *,
    say: Say = _silent,
    trust_remote_code: bool = False,
) -> Evaluation:
    """Measure a model on held-out rows (`read_held_out`), as a run of this recipe measures it.

    Of a checkpoint of that run these are the run's own numbers, bit for bit on the CPU of the same machine. ``model``
    is anything that a recipe may name as a model.

    Raises:
        SharpenError: something cannot be used, or what a checkpoint builds on has changed since.
    """
    named = find_model(str(model))
    path = Path(named.path)
    role = recipe.method.objectives()[0].model
    main = load_model(recipe, role, named.path, trust_remote_code)
    reference = None
    if held_out.reads != "prompts":
        reference = load_reference(recipe, {role: main}, path, trust_remote_code)
    if named.run is not None and (reference is not None or main.adapter is not None):
        fixed = None if reference is None or reference.moves else reference.policy
        check_models(load_state(path)["fingerprint"], fingerprint((), (), fixed, {role: main}))
    if held_out.reward is not None:
        held_out.reward.use_tokenizer(main.tokenizer)
    engine = LocalEngine(main) if isinstance(main, Policy) else None
    return held_out_measurement(recipe, held_out, main, engine, reference, say)()


def _go(trainer: Trainer, say: Say) -> Run:
    path, grace_s = trainer.folder.path, trainer.checkpoint.grace_s
    with stopped_after_step(trainer, grace_s=grace_s, say=say, way_on=lambda: way_on(path)) as request:
        trainer.run()
    finished = trainer.step >= trainer.training.steps
    return Run(path, checkpoints(trainer.folder.checkpoints)[-1], finished, request.signum)


def way_on(path: Path) -> str:
    """Where a run that was cut off goes on from, and how."""
    done = checkpoints(RunFolder(path).checkpoints)
    latest = f"the latest checkpoint is {done[-1]}" if done else "there is no checkpoint yet"
    return f"{latest}; to go on: sharpen run --resume {path}"
