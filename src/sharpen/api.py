"""The same from Python: a model, a method, data, a reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from sharpen.config import IN_MEMORY, make_recipe
from sharpen.data.tasks import TASKS
from sharpen.inputs import Given
from sharpen.methods import Method
from sharpen.report.progress import Console
from sharpen.run import Run, start
from sharpen.run import resume as resume_run
from sharpen.stopping import Stopped, pass_on
from sharpen.training.run_folder import RunFolder


def train(
    model: str | Path | Mapping[str, Any],
    method: str | Method | Mapping[str, Any],
    data: Any,
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
        model: a local Hugging Face folder or a hub id; or a mapping of a recipe's model settings, with its ``path``.
        method: a name (``"grpo"``), a name with settings, or a method such as ``GRPO(group_size=16)``.
        data: a list of rows, a JSONL, JSON, Parquet or CSV file, a ``datasets`` dataset, or a task's name.
        reward: a function ``(completion, **row) -> float``, a reward's name, or several with weights. A task has its
            own.
        held_out: prompts to measure on, given like ``data``.
        run: the folder to write.
        resume: go on with the run in that folder; the model, method and settings are the ones it was started with.
        settings: sections of a recipe, as mappings: ``training={"steps": 50}``, ``rollout={...}``.

    Ctrl-C ends the run after its present step, with a checkpoint, and the call returns. So do SIGTERM and SIGHUP, which
    then go to the handler that was there before; where there was none, the program ends by `SystemExit`.

    Raises:
        SharpenError: something cannot be used; the message names it.
    """
    path = Path(run)
    named = isinstance(data, str) and (data.partition("?")[0] in TASKS or data.startswith("reasoning_gym:"))
    given = Given(
        train=None if isinstance(data, str | Path) else data,
        held_out=None if isinstance(held_out, str | Path) else held_out,
        reward=reward,
    )
    if resume:
        _, recipe = RunFolder.open(path)
    else:
        source = {"task": data} if named else {"train": _name(data), "held_out": _name(held_out)}
        tree = {
            "run": path,
            "model": model if isinstance(model, Mapping) else str(model),
            "method": method,
            "reward": _reward_name(reward),
            **settings,
            "data": {**source, **settings.get("data", {})},
        }
        recipe = make_recipe(tree, where="train()")
    with Console(path.name, total=recipe.training.steps, quiet=quiet) as console:
        command = partial(resume_run, path) if resume else partial(start, recipe)
        try:
            done = command(given, loggers=[console], say=console.say)
        except Stopped as stopped:
            pass_on(stopped.signum)
            raise
    if done.signum is not None:
        pass_on(done.signum)
    return done


def _name(rows: Any) -> str | None:
    if rows is None:
        return None
    return str(rows) if isinstance(rows, str | Path) else IN_MEMORY


def _reward_name(reward: Any) -> Any:
    plain = isinstance(reward, str | Mapping)
    listed = isinstance(reward, Sequence) and all(isinstance(r, str | Mapping) for r in reward)
    return reward if reward is None or plain or listed else IN_MEMORY
