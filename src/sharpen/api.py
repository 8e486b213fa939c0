"""The Python API: train a model with a method, data and a reward."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from sharpen.data.settings import DataSettings
from sharpen.data.tasks import is_task, names_task
from sharpen.errors import RecipeError
from sharpen.in_memory import paths_as_text
from sharpen.launch.run import Run, start
from sharpen.launch.run import resume as resume_run
from sharpen.methods import Method
from sharpen.recipe.loading import load_recipe, make_recipe
from sharpen.report.progress import Console
from sharpen.runs.folder import RunFolder
from sharpen.system.signals import Stopped, pass_on


def train(
    model: str | Path | Mapping[str, Any],
    method: str | Method | type[Method] | Mapping[str, Any],
    train_dataset: Any = None,
    *,
    reward: Any = None,
    held_out: Any = None,
    run: str | Path,
    resume: bool = False,
    quiet: bool = False,
    **settings: Any,
) -> Run:
    """Train a model with a method on data.

    Args:
        model: a local Hugging Face folder, a hub id, or a mapping of a recipe's model settings including ``path``.
        method: a name (``"grpo"``), a name with settings, or a method such as ``GRPO(group_size=16)``.
        train_dataset: a list of rows, a JSONL, JSON, Parquet or CSV file, a ``datasets`` dataset, or a task's name.
        reward: a function ``(completion, **row) -> float``, a reward's name, a mapping of ``name`` (one of these),
            ``weight``, ``gate``, ``call`` and settings, or a list of these. A task has its own.
        held_out: prompts to evaluate on, in any form that ``train_dataset`` takes.
        run: the run folder to write.
        resume: resume the run in that folder, with the model, method and settings it was started with.
        settings: a recipe's other settings by name: ``seed=1``, and sections as mappings,
            ``training={"steps": 50}``, ``data={"chat": True}``. In ``data``, ``train``, ``held_out``,
            ``demonstrations`` and ``mixed`` may be rows as well.

    Ctrl-C stops the run after its current step, saves a checkpoint, and the call returns. SIGTERM and SIGHUP do the
    same, and are then passed to the previous handler; without one, the program exits with `SystemExit`.

    Raises:
        SharpenError: something cannot be used; the message names it.
    """
    path = Path(run)
    data = _data(train_dataset, held_out, settings.pop("data", None))
    if resume:
        objects = ("task", "train", "held_out", "demonstrations", "mixed")
        given = {f"data.{key}": data[key] for key in objects if _is_object(data.get(key))}
        if reward is not None:
            given["reward"] = reward
        if isinstance(method, Method):
            given["method"] = method
        recipe = load_recipe(RunFolder.open(path).recipe, given=given)
    else:
        tree = {
            "run": path,
            "model": _model(model),
            "method": method,
            "data": data,
            "reward": reward,
            **paths_as_text(settings),
        }
        recipe = make_recipe(tree, where="train()")
    with Console(path.name, total=recipe.training.steps, quiet=quiet) as console:
        command = partial(resume_run, path, given) if resume else partial(start, recipe)
        try:
            done = command(loggers=[console], say=console.say)
        except Stopped as stopped:
            pass_on(stopped.signum)
            raise
    if done.signum is not None:
        pass_on(done.signum)
    return done


def _data(train_dataset: Any, held_out: Any, section: Any) -> dict[str, Any]:
    """The ``data`` section, with any rows given in Python among its settings."""
    if not isinstance(section, Mapping | None):
        raise RecipeError(
            f"train(): `data` is a mapping of settings such as {{'chat': True}}, not {type(section).__name__}; what to "
            "train on is the third argument, train_dataset"
        )
    # A DatasetDict is a dict of splits.
    if type(train_dataset) is dict and train_dataset.keys() <= DataSettings.model_fields.keys():
        raise RecipeError("train(): the third argument is what to train on; give settings as data={...}")
    data = dict(section or {})
    named = names_task(train_dataset) if isinstance(train_dataset, str) else is_task(train_dataset)
    if train_dataset is not None:
        _once(data, "train_dataset", "train", "task")
        data["task" if named else "train"] = train_dataset
    if held_out is not None:
        _once(data, "held_out", "held_out")
        data["held_out"] = held_out
    return data


def _once(data: Mapping[str, Any], argument: str, *keys: str) -> None:
    for key in keys:
        if data.get(key) is not None:
            raise RecipeError(f"train(): given twice, as {argument} and as data[{key!r}]: leave one of them out")


def _is_object(value: Any) -> bool:
    return value is not None and not isinstance(value, str | os.PathLike)


def _model(model: Any) -> Any:
    if not isinstance(model, str | os.PathLike | Mapping):
        raise RecipeError(
            f"train(): `model` is a folder, a hub id or a mapping of model settings, not {type(model).__name__}"
        )
    return paths_as_text(model)
