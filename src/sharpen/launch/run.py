"""Starting and resuming: everything is checked before anything is written, then the trainer runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sharpen.data.chat.dates import date_written, today
from sharpen.errors import DiskError, DrawnRowError, NonFiniteError, SharpenError
from sharpen.launch.build import built_trainer
from sharpen.launch.chat_settings import recorded
from sharpen.launch.checks import check_before_writing, check_folder, check_space
from sharpen.launch.handle import Run
from sharpen.launch.inputs import Inputs, read_inputs
from sharpen.launch.progress import Progress
from sharpen.launch.resuming import go_on, of_recipe, refuse_impossible
from sharpen.launch.source_rows import Say
from sharpen.recipe.loading import NOTHING, load_recipe
from sharpen.recipe.schema import Recipe
from sharpen.report.diagnosis.watch import Watch
from sharpen.runs.checkpoint_list import begin_list, checkpoints, has_checkpoint, prune, recover, set_aside
from sharpen.runs.folder import RunFolder
from sharpen.runs.lock import run_lock
from sharpen.runs.lookup import not_of_the_run
from sharpen.runs.named_loggers import WHERE, LoggerSpec
from sharpen.system.note import Note
from sharpen.system.signals import stopped_after_step, stopped_at_once
from sharpen.system.streams import lasting_streams
from sharpen.system.user_code import being_imported, no_exit_from_user_code
from sharpen.training.trainer import OnStep, Trainer


def _silent(text: str) -> None:
    return


def start(
    recipe: Recipe,
    *,
    loggers: Sequence[LoggerSpec] = (),
    say: Say = _silent,
    on_step: OnStep | None = None,
    trust_remote_code: bool = False,
) -> Run:
    """Do a run from the beginning. ``trust_remote_code`` allows code from the model's folder to run.

    ``loggers`` are loggers beside those of the recipe, named or given in the same ways. ``on_step`` is called with each
    step and its metrics; if it returns False or raises, the run stops with a checkpoint
    of that step.

    Raises:
        RunInUseError: another process or thread is writing to that folder.
        SharpenError: something cannot be used; raised before the first step and before anything is written if it can
            be known by then.
    """
    command = partial(_start, recipe, loggers=loggers, say=say, on_step=on_step, trust_remote_code=trust_remote_code)
    return _safely(command, recipe.run, recipe.unnamed(), say, trust_remote_code)


def resume(
    path: Path,
    given: Mapping[str, Any] = NOTHING,
    *,
    loggers: Sequence[LoggerSpec] = (),
    say: Say = _silent,
    on_step: OnStep | None = None,
    trust_remote_code: bool = False,
    accept_changes: bool = False,
) -> Run:
    """Continue a run from its latest sound checkpoint, or from the beginning if it has none.

    ``given`` are the objects that the run was given in Python, by the paths of their settings such as ``data.train``.
    ``on_step`` is called as in `start`.
    Ends with the weights and metrics of a run that was never stopped, except timings (same machine, same threads).
    ``accept_changes``: go on if the data, code, models or settings are not those of the checkpoint, and record what has
    changed in ``changes.jsonl``.

    Raises:
        RunInUseError: another process or thread is writing this run.
        ChangedError: something has changed and is not accepted.
        SharpenError: something cannot be used, as in ``start``; the run stays as it is.
    """
    command = partial(
        _resume,
        path,
        given,
        loggers=loggers,
        say=say,
        on_step=on_step,
        trust_remote_code=trust_remote_code,
        accept_changes=accept_changes,
    )
    return _safely(command, path, given, say, trust_remote_code)


def _safely(command: Callable[[], Run], path: Path, given: Mapping[str, Any], say: Say, trust_remote_code: bool) -> Run:
    """Run a command; no signal, closed terminal, `sys.exit` in a reward, or NaN loses a finished step."""
    if source := being_imported():
        raise SharpenError(
            f'{source} starts a run while it is imported; put what a script does under `if __name__ == "__main__":`'
        )
    with lasting_streams(), stopped_at_once(), no_exit_from_user_code():
        try:
            return command()
        except NonFiniteError as error:
            # Do not keep the error: its frames hold the models, and there may be no room to load them again.
            step, message = error.step, str(error)
        except DrawnRowError as error:
            begun = f"; {how_to_continue(path)}" if RunFolder(path).recipe.exists() else ""
            raise DrawnRowError(
                f"{error}. Mend the row where it stands, and go on with the option --accept-changes{begun}"
            ) from error
        if step is not None:
            _save_step(path, step - 1, given, say, trust_remote_code)
            message = f"{message}; {how_to_continue(path)}"
        raise NonFiniteError(message, step)


def _save_step(path: Path, step: int, given: Mapping[str, Any], say: Say, trust_remote_code: bool) -> None:
    """Make sure that there is a checkpoint of ``step``: if not, repeat the steps since the latest checkpoint.

    The trainer has saved one if the step after it had not yet changed the weights.
    """
    if step < 1 or has_checkpoint(RunFolder(path).checkpoints, step):
        return
    say(f"the weights of step {step} are gone: repeating the steps since the latest checkpoint to save them")
    try:
        _resume(path, given, loggers=(), say=say, trust_remote_code=trust_remote_code, until=step)
    # Only reported: the error to raise is the one that led here.
    except SharpenError as error:
        say(f"that failed: {error}")


def _start(
    recipe: Recipe, *, loggers: Sequence[LoggerSpec], say: Say, on_step: OnStep | None, trust_remote_code: bool
) -> Run:
    check_folder(recipe.run)
    with run_lock(recipe.run, say) as locked:
        RunFolder.refuse_existing(recipe.run, locked=locked)
        inputs = read_inputs(recipe)
        for note in inputs.notes:
            say(note)
        check_before_writing(recipe, inputs, loggers)
        day = recipe.data.date or today()
        with (
            date_written(day),
            built_trainer(
                recipe, inputs, loggers=loggers, say=say, trust_remote_code=trust_remote_code, checkpoint=None
            ) as trainer,
        ):
            recipe = recorded(recipe, trainer.model.tokenizer, inputs.reward, day)
            trainer.fingerprint |= of_recipe(recipe)
            check_space(trainer.folder.path, trainer.learner.checkpoint_bytes())
            unnamed = recipe.unnamed()
            if needed := ", ".join(f"`{path}`" for path in unnamed if path != WHERE):
                say(
                    Note(
                        f"{needed}: given in Python, under no name that a recipe could save. To resume, give the same "
                        "to sharpen.resume()"
                    )
                )
            if WHERE in unnamed:
                say(Note(f"`{WHERE}`: some have no name that a recipe could save. A resumed run goes on without those"))
            if trainer.folder.recipe.exists():
                say(f"{recipe.run} held a run that did no step: this one takes its place")
            trainer.folder.initialise(recipe.to_yaml())
            begin_list(trainer.folder.checkpoints)
            trainer.on_step = on_step
            trainer.on_recorded = Watch(recipe.model_dump(mode="json"), say)
            return _train(trainer, recipe, inputs, say)


def _resume(
    path: Path,
    given: Mapping[str, Any],
    *,
    loggers: Sequence[LoggerSpec],
    say: Say,
    trust_remote_code: bool,
    on_step: OnStep | None = None,
    until: int | None = None,
    accept_changes: bool = False,
) -> Run:
    """``until``: stop after this step, save a checkpoint and remove none."""
    folder = RunFolder.open(path)
    recipe = load_recipe(folder.recipe, given=given)
    recipe = recipe.model_copy(update={"run": path})
    with run_lock(path, say):
        recover(folder.checkpoints)
        progress = Progress.of(folder, recipe.training.steps)
        for other in progress.unlisted:
            say(not_of_the_run(other))
        for problem in progress.damaged.values():
            say(f"skipped a checkpoint: {problem}")
        progress.refuse_damaged()
        checkpoint, state = progress.checkpoint, progress.state
        if checkpoint is not None and state is not None:
            refuse_impossible(path, recipe, state, checkpoint)
        if progress.all_steps and state is not None and not progress.damaged:
            # A run that was killed in its last step may have one too many.
            prune(folder.checkpoints, recipe.checkpoint.keep, state["best"] and state["best"]["step"])
        if progress.finished:
            assert state is not None
            for damage in folder.cut_back(state["step"]):
                say(damage)
            say(Note(f"{path} is finished: {recipe.training.steps} steps are done"))
            return Run(path, checkpoint, finished=True)
        say(Note(f"continuing from {checkpoint}" if checkpoint else "no checkpoint yet: starting from the beginning"))
        inputs = read_inputs(recipe)
        for note in inputs.notes:
            say(note)
        check_before_writing(recipe, inputs, loggers)
        with (
            date_written(recipe.data.date),
            built_trainer(
                recipe, inputs, loggers=loggers, say=say, trust_remote_code=trust_remote_code, checkpoint=checkpoint
            ) as trainer,
        ):
            check_space(path, trainer.learner.checkpoint_bytes())
            trainer.fingerprint |= of_recipe(recipe)
            changed = go_on(trainer, path, checkpoint, accept_changes=accept_changes, say=say)
            folder.make()
            set_aside(folder.checkpoints, progress.damaged)
            for damage in folder.cut_back(trainer.step if checkpoint else -1):
                say(damage)
            changed.record()
            trainer.stop_at, trainer.on_step = until, on_step
            if until is None:
                # What is repeated up to a step was said the first time.
                watch = Watch(recipe.model_dump(mode="json"), say)
                watch.prime(folder)
                trainer.on_recorded = watch
            return _train(trainer, recipe, inputs, say)


def _train(trainer: Trainer, recipe: Recipe, inputs: Inputs, say: Say) -> Run:
    path, grace_s = trainer.folder.path, trainer.checkpoint.grace_s
    _record_start(trainer, recipe, inputs)
    # Step 0 has no checkpoint, so what is at step 0 begins.
    trainer.loggers.start(trainer.folder, recipe.model_dump(mode="json"), trainer.step or None)
    with stopped_after_step(
        trainer, grace_s=grace_s, say=say, how_to_continue=lambda: how_to_continue(path)
    ) as request:
        try:
            trainer.run()
        except DiskError as error:
            raise DiskError(f"{error}; {how_to_continue(path)}") from error
    finished = trainer.step >= trainer.training.steps
    return Run(path, checkpoints(trainer.folder.checkpoints)[-1], finished, request.signum)


def _record_start(trainer: Trainer, recipe: Recipe, inputs: Inputs) -> None:
    """What the page of the run says of it, and only the process that trains knows."""
    view, model = trainer.method.unified_view, trainer.model
    held_out = inputs.held_out.parts if inputs.held_out else ()
    trainer.folder.starts.write(
        trainer.step,
        sentence={part: getattr(view, part) for part in ("source", "reward", "advantage", "loss")},
        paper=view.paper,
        parameters=sum(weight.numel() for weight in model.root.parameters()),
        trained_parameters=sum(weight.numel() for weight in model.parameters()),
        device=str(model.device),
        dtype=model.compute_dtype,
        threads=torch.get_num_threads(),
        training_rows=sum(len(part.rows) for part in inputs.train),
        held_out_rows=sum(min(len(part.rows), recipe.evaluation.prompts) for part in held_out),
    )


def how_to_continue(path: Path) -> str:
    """The checkpoint from which an interrupted run goes on, and what continues it."""
    folder = RunFolder(path)
    done = checkpoints(folder.checkpoints)
    latest = f"the latest checkpoint is {done[-1]}" if done else "there is no checkpoint yet"
    return f"{latest}; to continue: {folder.continuing()}"
