"""Engines by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from sharpen.models.policy import Policy
from sharpen.rollout.engine import Engine
from sharpen.rollout.local.engine import LocalEngine
from sharpen.rollout.settings import EngineSettings

ENGINES: Mapping[str, Callable[[EngineSettings, Policy], Engine]] = {
    "local": lambda settings, policy: LocalEngine(policy, max_sequences=settings.max_sequences, kv_gib=settings.kv_gib),
}


def make_engine(settings: EngineSettings, policy: Policy) -> Engine:
    """The engine that the settings name, drawing with the policy's weights. Raises what its constructor raises."""
    return ENGINES[settings.name](settings, policy)
