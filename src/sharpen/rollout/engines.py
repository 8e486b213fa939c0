"""Engines by name, or from outside the package as ``module:name`` or ``path/to/file.py:name``."""

from __future__ import annotations

from collections.abc import Callable

from sharpen.errors import RecipeError
from sharpen.models.policy import Policy
from sharpen.registry import Registry
from sharpen.rollout.engine import Engine
from sharpen.rollout.local.engine import LocalEngine
from sharpen.rollout.settings import EngineSettings
from sharpen.system.shown import shown
from sharpen.system.user_code import named_failure

MakeEngine = Callable[[EngineSettings, Policy], Engine]


def _local(settings: EngineSettings, policy: Policy) -> Engine:
    return LocalEngine(policy, max_sequences=settings.max_sequences, kv_gib=settings.kv_gib)


ENGINES: Registry[MakeEngine] = Registry("engine", {"local": _local}, error=RecipeError)


def make_engine(settings: EngineSettings, policy: Policy) -> Engine:
    """The engine that the settings name, drawing with the policy's weights.

    Raises:
        RecipeError: there is no such engine, or one of your own cannot be constructed.
    """
    where = "rollout.engine.name"
    make: MakeEngine = ENGINES.find(settings.name, where) if isinstance(settings.name, str) else settings.name
    if not callable(make):
        raise RecipeError(f"{where} {settings.name!r} is a {type(make).__name__}, not a class or function")
    if settings.name == "local":
        return make(settings, policy)
    with named_failure(f"{where}: {shown(settings.name)}", RecipeError):
        return make(settings, policy)
