"""Engines by name, or from outside the package as ``module:name`` or ``path/to/file.py:name``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sharpen.errors import RecipeError
from sharpen.models.policy import Policy
from sharpen.rewards.execution.named import load_named
from sharpen.rollout.engine import Engine
from sharpen.rollout.local.engine import LocalEngine
from sharpen.rollout.settings import EngineSettings
from sharpen.suggest import did_you_mean

MakeEngine = Callable[[EngineSettings, Policy], Engine]

ENGINES: Mapping[str, MakeEngine] = {
    "local": lambda settings, policy: LocalEngine(policy, max_sequences=settings.max_sequences, kv_gib=settings.kv_gib),
}


def make_engine(settings: EngineSettings, policy: Policy) -> Engine:
    """The engine that the settings name, drawing with the policy's weights.

    Raises:
        RecipeError: there is no such engine; else what its constructor raises.
    """
    name = settings.name
    if name in ENGINES:
        return ENGINES[name](settings, policy)
    if ":" not in name:
        raise RecipeError(
            f"rollout.engine.name: there is no engine {name!r}.{did_you_mean(name, ENGINES)} Known: "
            f"{', '.join(ENGINES)}, or one of your own as module:name"
        )
    make: MakeEngine = load_named(name, f"rollout.engine.name {name!r}", RecipeError)
    return make(settings, policy)
