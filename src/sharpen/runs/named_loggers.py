"""The loggers that a recipe names or Python gives, checked before a run is written and made when it starts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, get_type_hints

from pydantic import BaseModel, ValidationError, create_model

from sharpen.errors import RecipeError
from sharpen.in_memory import IN_MEMORY, in_memory, saved, saved_as_data
from sharpen.runs.loggers import LOGGERS, LoggedRun, MetricLogger, PackagedLogger
from sharpen.settings import Settings, explain

WHERE = "log.loggers"

LoggerSpec: TypeAlias = str | Mapping[str, Any] | Callable[..., MetricLogger] | MetricLogger
"""A name, a mapping of a ``name`` (any of these) and settings, a class or function to be made, or an object."""


@dataclass(frozen=True, slots=True)
class NamedLogger:
    """A logger that is not made yet."""

    name: str
    kind: Callable[..., MetricLogger]
    settings: Mapping[str, Any]

    def make(self, run: LoggedRun) -> MetricLogger:
        """Raises what the logger's class or function raises, and TypeError if it makes no logger."""
        made = self.kind(run, **self.settings)
        if not _is_logger(made):
            raise TypeError(f"it made a {type(made).__name__}, which has no `log` and `close`")
        return made


def as_entries(loggers: Any) -> tuple[Any, ...]:
    """One logger or several, as several."""
    return tuple(loggers) if isinstance(loggers, list | tuple) else (loggers,)


def saved_loggers(entries: Sequence[LoggerSpec]) -> Any:
    """What a saved recipe has for loggers; `IN_MEMORY` for what no import gives."""
    return [_saved(entry) for entry in entries]


def _saved(entry: LoggerSpec) -> Any:
    if not isinstance(entry, Mapping):
        return saved(entry, LOGGERS.name_of)
    settings = {key: value for key, value in entry.items() if key != "name"}
    return {"name": saved(entry.get("name"), LOGGERS.name_of), **saved_as_data(settings)}


def find_loggers(entries: Sequence[LoggerSpec], where: str = WHERE) -> tuple[NamedLogger | MetricLogger, ...]:
    """The loggers that are named, or given in Python as a class, a function or an object, which is returned as it is.

    A class or function is called with the run and its settings, which a mapping has beside its ``name``. Those that
    a saved recipe lacks because they were given in Python are left out: a logger changes no result.

    Raises:
        RecipeError: there is no such logger, it has no such setting, or its package is not installed.
    """
    return tuple(_find(entry, where) for entry in entries if not _lacking(entry))


def _lacking(entry: LoggerSpec) -> bool:
    return any(given == IN_MEMORY for _, given in in_memory(saved_loggers([entry]), [entry]))


def _find(entry: LoggerSpec, where: str) -> NamedLogger | MetricLogger:
    given = dict(entry) if isinstance(entry, Mapping) else {"name": entry}
    spec = given.pop("name", None)
    kind: Any = LOGGERS.find(spec, where) if isinstance(spec, str) else spec
    is_logger = _is_logger(kind)
    if not is_logger and (isinstance(kind, type) or not callable(kind)):
        raise RecipeError(
            f"{where}: {spec if isinstance(spec, str) else entry!r} is not a logger: a class whose objects have "
            "`log(step, metrics)` and `close()`, a function that makes one, or such an object"
        )
    name = spec if isinstance(spec, str) else getattr(kind, "__name__", type(kind).__name__)
    if isinstance(kind, type) or not is_logger:
        if isinstance(kind, type) and issubclass(kind, PackagedLogger):
            kind.package()
        return NamedLogger(name, kind, _checked(name, kind, given, where))
    if given:
        raise RecipeError(f"{where}: logger {name} is already made and takes no settings: {', '.join(given)}")
    found: MetricLogger = kind
    return NamedLogger(name, lambda run: found, {}) if isinstance(spec, str) else found


def _is_logger(thing: object) -> bool:
    return all(_has(thing, method) for method in ("log", "close"))


def _has(thing: object, method: str) -> bool:
    try:
        return callable(getattr(thing, method, None))
    # A property of a user's class; what it raises is said when it is to log.
    except Exception:  # noqa: BLE001
        return True


def _checked(name: str, kind: Any, given: Mapping[str, Any], where: str) -> dict[str, Any]:
    if not inspect.signature(kind).parameters:
        raise RecipeError(f"{where}: logger {name} takes no argument, and is made with the run")
    settings = logger_settings(kind)
    try:
        checked = settings.model_validate(dict(given))
    except ValidationError as error:
        raise RecipeError(f"{where}: logger {name}: {'; '.join(explain(error, settings))}") from error
    return {key: getattr(checked, key) for key in given}


def logger_settings(kind: Any) -> type[BaseModel]:
    """The settings of a logger: the parameters of its class or function after the first, the run, with their types."""
    _, *parameters = inspect.signature(kind).parameters.values()
    of_class = isinstance(kind, type)
    declares = kind.__init__ if of_class else kind if inspect.isroutine(kind) else type(kind).__call__
    hints = get_type_hints(declares, include_extras=True)
    fields: dict[str, Any] = {
        p.name: (hints.get(p.name, Any), ... if p.default is p.empty else p.default)
        for p in parameters
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    base = _AnySettings if any(p.kind is p.VAR_KEYWORD for p in parameters) else _LoggerSettings
    settings: type[BaseModel] = create_model(getattr(kind, "__name__", "Logger"), __base__=base, **fields)
    return settings


class _LoggerSettings(Settings, arbitrary_types_allowed=True, validate_default=False):
    pass


class _AnySettings(_LoggerSettings, extra="allow"):
    pass
