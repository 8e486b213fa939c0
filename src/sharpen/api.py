"""Training from Python: a model, a method, data and a reward."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from sharpen.data.settings import DataSettings
from sharpen.data.tasks import is_task, names_task
from sharpen.errors import RecipeError
from sharpen.evaluation.settings import EvaluationSettings
from sharpen.launch.handle import Run
from sharpen.launch.run import resume as resume_run
from sharpen.launch.run import start
from sharpen.methods import Method
from sharpen.models.settings import ModelSettings
from sharpen.recipe.compare import differences
from sharpen.recipe.loading import make_recipe, read_tree
from sharpen.recipe.schema import Recipe
from sharpen.report.page.at_end import report_after_error, report_at_end
from sharpen.report.progress import Console
from sharpen.rewards.checking.settings import RewardCheckSettings
from sharpen.rollout.settings import RolloutSettings
from sharpen.runs.folder import RunFolder
from sharpen.runs.named_loggers import LoggerSpec, as_entries
from sharpen.settings import Settings
from sharpen.system.note import Note
from sharpen.system.signals import Stopped, pass_on
from sharpen.training.settings import CheckpointSettings, LogSettings, OptimizerSettings, TrainingSettings
from sharpen.training.trainer import OnStep

Section: TypeAlias = Mapping[str, Any]
"""Some of a section's settings by name."""


def train(
    model: str | Path | Run | ModelSettings | Section,
    method: str | Method | type[Method] | Section,
    train_dataset: Any = None,
    *,
    reward: Any = None,
    held_out: Any = None,
    run: str | Path,
    seed: int | None = None,
    data: DataSettings | Section | None = None,
    rollout: RolloutSettings | Section | None = None,
    optimizer: OptimizerSettings | Section | None = None,
    training: TrainingSettings | Section | None = None,
    evaluation: EvaluationSettings | Section | None = None,
    checkpoint: CheckpointSettings | Section | None = None,
    log: LogSettings | Section | None = None,
    reward_check: RewardCheckSettings | Section | None = None,
    loggers: LoggerSpec | Sequence[LoggerSpec] = (),
    on_step: OnStep | None = None,
    resume: bool = False,
    quiet: bool = False,
) -> Run:
    """Train a model with a method on data.

    Args:
        model: a local Hugging Face folder, a run, a hub id, or a recipe's model settings including ``path``.
        method: a name (``"grpo"``), a name with settings, or a method such as ``GRPO(group_size=16)``.
        train_dataset: a list of rows, a JSONL, JSON, Parquet or CSV file, a ``datasets`` dataset, or a task.
        reward: a function ``(completion, **row) -> float``, a verifier such as ``Math()``, a reward's name, a mapping
            of ``name`` (one of these), ``weight``, ``gate``, ``call`` and settings, or a list of these. A task has its
            own.
        held_out: prompts to evaluate on, in any form that ``train_dataset`` takes.
        run: the run folder to write.
        seed: the same seed gives the same run.
        data: how rows become prompts. ``train``, ``held_out``, ``demonstrations`` and ``mixed`` may be rows. With
            several data sources, ``data={"sources": {...}}``, ``train_dataset`` is left out.
        rollout: how completions are sampled.
        optimizer: the optimizer and its schedule.
        training: the number of steps and their size.
        evaluation: how the model is measured on ``held_out``.
        checkpoint: when checkpoints are written, and which are kept.
        log: what is logged, and where.
        reward_check: how ``sharpen reward check`` examines the reward.
        loggers: loggers beside those of ``log``: names, mappings of a ``name`` and settings, objects with
            ``log(step, metrics)`` and ``close()``, or classes and functions, which are called with the run.
        on_step: called with each step and its metrics. If it returns False or raises, the run stops with a checkpoint
            of that step; what it raises is passed on.
        resume: resume the run in that folder. The other arguments must be what it was started with.
        quiet: show no progress; warnings are still shown.

    Each section from ``data`` to ``reward_check`` is an object of its class or a mapping of some of its settings.
    At its end the run is shown in ``report.html`` in its folder, see `Run.report`.
    Ctrl-C stops the run after its current step, saves a checkpoint, and the call returns. SIGTERM and SIGHUP do the
    same, and are then passed to the previous handler; without one, the program exits with `SystemExit`.

    Raises:
        SharpenError: something cannot be used; the message names it.
    """
    path = Path(run).expanduser()
    tree = {
        "model": _model(model),
        "method": method,
        "data": _data(train_dataset, held_out, data),
        "reward": reward,
        "seed": seed,
        "rollout": _section("rollout", rollout),
        "optimizer": _section("optimizer", optimizer),
        "training": _section("training", training),
        "evaluation": _section("evaluation", evaluation),
        "checkpoint": _section("checkpoint", checkpoint),
        "log": _section("log", log),
        "reward_check": _section("reward_check", reward_check),
    }
    given = {name: value for name, value in tree.items() if value is not None}
    if resume:
        return _resumed("train()", path, given, loggers, on_step, quiet)
    recipe = make_recipe({"run": path, **given}, where="train()")
    return _shown(
        recipe,
        path,
        lambda console: start(recipe, loggers=[console, *as_entries(loggers)], say=console.say, on_step=on_step),
        recipe.unnamed(),  # before training, in which a verifier may come to hold what its name does not give again
        quiet=quiet,
    )


def resume(
    run: str | Path | Run,
    *,
    method: Method | type[Method] | None = None,
    train_dataset: Any = None,
    reward: Any = None,
    held_out: Any = None,
    data: Section | None = None,
    rollout: Section | None = None,
    loggers: LoggerSpec | Sequence[LoggerSpec] = (),
    on_step: OnStep | None = None,
    quiet: bool = False,
    accept_changes: bool = False,
) -> Run:
    """Resume a run from its latest checkpoint; it ends as if it had never been stopped.

    All settings are those that it was started with. What its recipe cannot name has to be given again: rows, and
    what no import gives, such as a lambda or a class of a notebook. ``loggers``, ``on_step`` and ``quiet`` are as in
    `train`.

    The data, the source code of rewards and other functions, the models and the settings in ``recipe.yaml`` must be
    those of the checkpoint. With ``accept_changes`` the run goes on with what they have become, says what has changed
    and records it in ``changes.jsonl``.

    Raises:
        ChangedError: something is not what the run was started with.
        SharpenError: there is no such run; something is missing, or cannot be used.
    """
    given = {
        "method": method,
        "data": _data(train_dataset, held_out, data, "resume()"),
        "reward": reward,
        "rollout": _section("rollout", rollout, "resume()"),
    }
    path = run.path if isinstance(run, Run) else Path(run).expanduser()
    named = {name: value for name, value in given.items() if value is not None}
    return _resumed("resume()", path, named, loggers, on_step, quiet, accept_changes=accept_changes)


def _resumed(
    where: str,
    path: Path,
    given: Mapping[str, Any],
    loggers: LoggerSpec | Sequence[LoggerSpec],
    on_step: OnStep | None,
    quiet: bool,
    *,
    accept_changes: bool = False,
) -> Run:
    """Resume a run; errors in what is ``given`` begin with ``where``."""
    saved = read_tree(RunFolder.open(path).recipe)
    recipe = _same_recipe(where, path, saved, given)
    objects = {**recipe.unnamed(), **recipe.unnamed(saved)}
    return _shown(
        recipe,
        path,
        lambda console: resume_run(
            path,
            objects,
            loggers=[console, *as_entries(loggers)],
            say=console.say,
            on_step=on_step,
            accept_changes=accept_changes,
        ),
        objects,
        quiet=quiet,
    )


def _shown(
    recipe: Recipe, path: Path, command: Callable[[Console], Run], objects: Mapping[str, Any], *, quiet: bool
) -> Run:
    """Carry out a run with its progress shown, and write its report."""
    with Console(path.name, total=recipe.training.steps, quiet=quiet) as console:
        try:
            with report_after_error(path, console.say):
                done = command(console)
        except Stopped as stopped:
            pass_on(stopped.signum)
            raise
        # After a scheduler's signal there is no time for it.
        if done.finished or done.signum in (None, signal.SIGINT):
            report = report_at_end(path, console.say)
            if report is not None:
                console.say(Note(f"report: {report}"))
    if done.signum is not None:
        pass_on(done.signum)
    return replace(done, given=objects)


def _same_recipe(where: str, path: Path, saved: Mapping[str, Any], given: Mapping[str, Any]) -> Recipe:
    """The ``saved`` recipe of a run with the given settings, objects included.

    Raises RecipeError for settings that are not those that the run was started with.
    """
    tree = dict(saved)
    for name, value in given.items():
        tree[name] = value if name in ("method", "reward") else _merged(tree.get(name), value)
    recipe = make_recipe(tree, where=where)
    # What the recipe does not have is a setting that is newer than it.
    if changes := list(differences(saved, recipe.model_dump(mode="json"), added=False)):
        raise RecipeError(
            "\n".join(
                [
                    f"{path}: a resumed run keeps the settings it was started with; leave out, or give as they were:",
                    *(f"`{name}`: started with {old!r}, now {new!r}" for name, old, new in changes),
                ]
            )
        )
    return recipe


def _merged(saved: Any, given: Any) -> Any:
    """The saved settings with the given ones in their place."""
    if not (isinstance(saved, Mapping) and isinstance(given, Mapping)):
        return given
    return {**saved, **{key: _merged(saved.get(key), value) for key, value in given.items()}}


def _section(name: str, section: Settings | Section | None, where: str = "train()") -> dict[str, Any] | None:
    """The settings of a section that are given, with paths as in a recipe. Errors begin with ``where``."""
    if isinstance(section, Settings):
        return {key: getattr(section, key) for key in section.model_fields_set}
    if not isinstance(section, Mapping | None):
        raise RecipeError(
            f"{where}: `{name}` is a mapping of settings, or an object of their class, not {type(section).__name__}"
        )
    if section is None:
        return None
    return {key: os.fspath(value) if isinstance(value, os.PathLike) else value for key, value in section.items()}


def _data(
    train_dataset: Any, held_out: Any, section: DataSettings | Section | None, where: str = "train()"
) -> dict[str, Any]:
    """The ``data`` section, with any rows given in Python among its settings."""
    if not isinstance(section, DataSettings | Mapping | None):
        raise RecipeError(
            f"{where}: `data` is a mapping of settings such as {{'chat': True}}, not {type(section).__name__}; what to "
            "train on is `train_dataset`"
        )
    # A DatasetDict is a dict of splits.
    if type(train_dataset) is dict and train_dataset.keys() <= DataSettings.model_fields.keys():
        raise RecipeError(f"{where}: `train_dataset` is what to train on; give settings as data={{...}}")
    data = _section("data", section, where) or {}
    named = names_task(train_dataset) if isinstance(train_dataset, str) else is_task(train_dataset)
    if train_dataset is not None:
        _once(where, data, "train_dataset", "train", "task")
        data["task" if named else "train"] = train_dataset
    if held_out is not None:
        _once(where, data, "held_out", "held_out")
        data["held_out"] = held_out
    return data


def _once(where: str, data: Mapping[str, Any], argument: str, *keys: str) -> None:
    for key in keys:
        if data.get(key) is not None:
            raise RecipeError(f"{where}: given twice, as {argument} and as data[{key!r}]: leave one of them out")


def _model(model: Any) -> Any:
    if isinstance(model, str | Path):
        return {"path": str(model)}
    if isinstance(model, Run):
        return {"path": str(model.path)}
    if not isinstance(model, ModelSettings | Mapping):
        raise RecipeError(
            f"train(): `model` is a folder, a hub id or a mapping of model settings, not {type(model).__name__}"
        )
    return _section("model", model)
