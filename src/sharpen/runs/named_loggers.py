"""The loggers that a recipe names, checked before a run is written and made when it starts."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_type_hints

from pydantic import BaseModel, ValidationError, create_model

from sharpen.errors import RecipeError
from sharpen.runs.loggers import LOGGERS, LoggedRun, MetricLogger, PackagedLogger
from sharpen.settings import Settings, explain

WHERE = "log.loggers"


@dataclass(frozen=True, slots=True)
class NamedLogger:
    """A logger that is not made yet."""

    name: str
    kind: Callable[..., MetricLogger]
    settings: Mapping[str, Any]

    def make(self, run: LoggedRun) -> MetricLogger:
        """Raises what the logger's class raises."""
        return self.kind(run, **self.settings)


def find_loggers(entries: Sequence[str | Mapping[str, Any]]) -> tuple[NamedLogger, ...]:
    """The loggers of ``log.loggers``: names, or mappings of a ``name`` and settings.

    Raises:
        RecipeError: there is no such logger, it has no such setting, or its package is not installed.
    """
    return tuple(_find(entry) for entry in entries)


def _find(entry: str | Mapping[str, Any]) -> NamedLogger:
    given = {"name": entry} if isinstance(entry, str) else dict(entry)
    name = given.pop("name")
    kind = LOGGERS.find(name, WHERE)
    if not isinstance(kind, type) or not all(callable(getattr(kind, method, None)) for method in ("log", "close")):
        raise RecipeError(
            f"{WHERE}: {name!r} is not a logger: a class whose objects have `log(step, metrics)` and `close()`"
        )
    if issubclass(kind, PackagedLogger):
        kind.package()
    return NamedLogger(name, kind, _checked(name, kind, given))


def _checked(name: str, kind: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    settings = logger_settings(kind)
    try:
        checked = settings.model_validate(dict(given))
    except ValidationError as error:
        raise RecipeError(f"{WHERE}: logger {name}: {'; '.join(explain(error, settings))}") from error
    return {key: getattr(checked, key) for key in given}


def logger_settings(kind: Any) -> type[BaseModel]:
    """The settings of a logger, with the types that its class declares for its parameters after the first, the run."""
    _, *parameters = inspect.signature(kind).parameters.values()
    hints = get_type_hints(kind.__init__, include_extras=True)
    fields: dict[str, Any] = {
        p.name: (hints.get(p.name, Any), ... if p.default is p.empty else p.default)
        for p in parameters
        if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    base = _AnySettings if any(p.kind is p.VAR_KEYWORD for p in parameters) else _LoggerSettings
    settings: type[BaseModel] = create_model(kind.__name__, __base__=base, **fields)
    return settings


class _LoggerSettings(Settings, arbitrary_types_allowed=True, validate_default=False):
    pass


class _AnySettings(_LoggerSettings, extra="allow"):
    pass
