"""Tasks by name, with parameters: ``arithmetic?terms=4&wrong_step_share=0.1``."""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from pydantic import ValidationError

from sharpen.data.query import parse_query
from sharpen.data.tasks.arithmetic import Arithmetic
from sharpen.data.tasks.gym import gym_task
from sharpen.data.tasks.sums import Sums
from sharpen.data.tasks.task import Task
from sharpen.data.tasks.words import Words
from sharpen.errors import RecipeError
from sharpen.settings import Settings, explain
from sharpen.suggest import did_you_mean

GYM_PREFIX = "reasoning_gym:"

Kind = TypeVar("Kind", bound=Settings)


def resolve_task(spec: str) -> Task:
    """The task that ``name?key=value&key=value`` specifies.

    Raises RecipeError for an unknown name or parameter, with the nearest known one, and for an invalid parameter
    value.
    """
    name, parameters = parse_query(spec)
    if name.startswith(GYM_PREFIX):
        return gym_task(name.removeprefix(GYM_PREFIX), parameters, spec)
    if name not in TASKS:
        known = [*TASKS, f"{GYM_PREFIX}<name of a reasoning-gym task>"]
        raise RecipeError(f"{spec}: unknown task {name!r}.{did_you_mean(name, TASKS)} Known: {', '.join(known)}")
    return TASKS[name](parameters, spec)


def describe_tasks() -> dict[str, str]:
    """Task name → one-line description, and parameters with their defaults."""
    return {name: _describe(kind) for name, kind in _KINDS.items()}


def _describe(kind: type[Settings]) -> str:
    first_line = (sys.modules[kind.__module__].__doc__ or "").strip().partition("\n")[0]
    parameters = ", ".join(f"{name}={field.default}" for name, field in kind.model_fields.items())
    return f"{first_line} Parameters: {parameters}"


def _build(kind: type[Kind], parameters: Mapping[str, str], spec: str) -> Kind:
    try:
        return kind.model_validate(parameters)
    except ValidationError as error:
        raise RecipeError(f"{spec}: {'; '.join(explain(error, kind, 'parameter'))}") from error


_KINDS: dict[str, type[Arithmetic] | type[Sums] | type[Words]] = {
    "arithmetic": Arithmetic,
    "sums": Sums,
    "words": Words,
}
TASKS: dict[str, Callable[[Mapping[str, str], str], Task]] = {
    name: partial(_build, kind) for name, kind in _KINDS.items()
}
