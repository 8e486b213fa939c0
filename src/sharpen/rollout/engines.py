"""Engines by name, or from outside the package as ``module:name`` or ``path/to/file.py:name``."""

from __future__ import annotations

from collections.abc import Callable

from sharpen.errors import RecipeError
from sharpen.models.policy import Policy
from sharpen.registry import Registry
from sharpen.rollout.engine import Engine
from sharpen.rollout.local.engine import LocalEngine
from sharpen.rollout.settings import EngineSettings

MakeEngine = Callable[[EngineSettings, Policy], Engine]


def _local(settings: EngineSettings, policy: Policy) -> Engine:
    return LocalEngine(policy, max_sequences=settings.max_sequences, kv_gib=settings.kv_gib)


ENGINES: Registry[MakeEngine] = Registry("engine", {"local": _local}, error=RecipeError)


def make_engine(settings: EngineSettings, policy: Policy) -> Engine:
    """The engine that the settings name, drawing with the policy's weights.

    Raises:
        RecipeError: there is no such engine; else what its constructor raises.
    """
    where = "rollout.engine.name"
    make = ENGINES.find(settings.name, where) if isinstance(settings.name, str) else settings.name
    if not callable(make):
        raise RecipeError(f"{where} {settings.name!r} is a {type(make).__name__}, not a class or function")
    engine: Engine = make(settings, policy)
    return engine
