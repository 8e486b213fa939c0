"""Tasks by name, with parameters: ``arithmetic?terms=4&wrong_step_share=0.1``."""

import inspect
import sys
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlencode

from pydantic import ValidationError

from sharpen.data.query import parse_query
from sharpen.data.tasks.arithmetic import Arithmetic
from sharpen.data.tasks.gym import gym_task
from sharpen.data.tasks.sums import Sums
from sharpen.data.tasks.task import Task
from sharpen.data.tasks.words import Words
from sharpen.errors import RecipeError
from sharpen.in_memory import fields_of
from sharpen.registry import Registry
from sharpen.settings import Settings, explain
from sharpen.system.user_code import named_failure

GYM_PREFIX = "reasoning_gym:"

TASKS: Registry[type[Arithmetic] | type[Sums] | type[Words]] = Registry(
    "task", {"arithmetic": Arithmetic, "sums": Sums, "words": Words}, error=RecipeError
)


def resolve_task(spec: object, setting: str = "data.task") -> Task:
    """The task that ``name?key=value&key=value`` specifies; in Python also a task, or a class of tasks.

    The name is one of `TASKS`, ``reasoning_gym:<name>``, or that of a class or object of your own, as
    ``module:Name`` or ``path/to/file.py:Name``.

    Raises RecipeError for an unknown name or parameter, with the nearest known one, and for an invalid parameter
    value; ``setting`` is what names the task.
    """
    if not isinstance(spec, str):
        return _task(spec, {}, f"{setting} {spec!r}")
    name, parameters = parse_query(spec)
    if name.startswith(GYM_PREFIX):
        return gym_task(name.removeprefix(GYM_PREFIX), parameters, spec)
    return _task(TASKS.find(name, setting), parameters, spec)


def names_task(text: str) -> bool:
    """Whether a text names a task, rather than a file or a data set."""
    name = text.partition("?")[0]
    own = ":" in name and (name.partition(":")[0].endswith(".py") or "/" not in name)
    return name in TASKS or own


def is_task(thing: object) -> bool:
    """Whether an object is a task or a class of tasks."""
    return all(hasattr(thing, part) for part in ("train_rows", "held_out_rows", "verify"))


def task_name(task: object) -> str | None:
    """The specification that `resolve_task` makes an equal task of; None if there is none."""
    kind = task if isinstance(task, type) else type(task)
    name = TASKS.name_of(kind)
    if name is None or isinstance(task, type):
        return name
    fields = fields_of(task) if isinstance(task, Settings) else None
    if fields is None:
        return None
    given = {key: value for key, value in fields.items() if value is not None}
    spec = f"{name}?{urlencode(given)}" if given else name
    try:
        again = _task(kind, parse_query(spec)[1], spec)
    except RecipeError:
        # A query has texts alone.
        return None
    return spec if again == task else None


def describe_tasks() -> dict[str, str]:
    """Task name → one-line description, and parameters with their defaults."""
    return {name: _describe(kind) for name, kind in TASKS.items()}


def _describe(kind: type[Settings]) -> str:
    first_line = (sys.modules[kind.__module__].__doc__ or "").strip().partition("\n")[0]
    parameters = ", ".join(f"{name}={field.default}" for name, field in kind.model_fields.items())
    return f"{first_line} Parameters: {parameters}"


def _task(found: object, parameters: Mapping[str, str], spec: str) -> Task:
    """The task that was found under a name, or that its class makes of the parameters."""
    task = found
    if isinstance(found, type) and issubclass(found, Settings):
        try:
            task = found.model_validate(parameters)
        except ValidationError as error:
            raise RecipeError(f"{spec}: {'; '.join(explain(error, found, 'parameter'))}") from error
    elif isinstance(found, type) or inspect.isfunction(found):
        task = _made(found, parameters, spec)
    elif parameters:
        raise RecipeError(f"{spec}: this task is already constructed and takes no parameters")
    if isinstance(task, type) or not is_task(task):
        raise RecipeError(f"{spec} is a {type(task).__name__}, not a task: see sharpen.data.tasks.Task")
    return cast(Task, task)


def _made(kind: Any, parameters: Mapping[str, str], spec: str) -> object:
    try:
        inspect.signature(kind).bind(**parameters)
    except TypeError as error:
        raise RecipeError(f"{spec}: {error}") from error
    with named_failure(f"{spec}: {kind.__name__}", RecipeError):
        return kind(**parameters)
