"""Conversations as the settings of a rollout ask for them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sharpen.data.settings import SourceSettings
from sharpen.errors import RecipeError
from sharpen.models.model import Model
from sharpen.models.vocabulary import embedding_rows
from sharpen.registry import Registry
from sharpen.rollout.answers import calls_at_once
from sharpen.rollout.generation import Interaction, Interactions
from sharpen.rollout.settings import RolloutSettings
from sharpen.rollout.turns import Turns

TURNS: Registry[Turns] = Registry("turns function", {}, error=RecipeError)
"""sharpen brings none: all are a user's own."""

NO_SOURCES: Mapping[str, SourceSettings] = MappingProxyType({})


def make_interaction(
    settings: RolloutSettings, model: Model, context: int, sources: Mapping[str, SourceSettings] = NO_SOURCES
) -> Interactions:
    """Conversations with the model, of at most ``context`` tokens; None for trajectories of one turn.

    If any of the data ``sources`` has turns of its own, by the name of those that have.

    Raises RecipeError if the function of turns cannot be imported, is not a function, or has a wrong ``at_once``.
    """
    own = {name: source for name, source in sources.items() if source.turns is not None}
    if own:
        return {name: _made(f"data.sources.{name}.turns", one, settings, model, context) for name, one in own.items()}
    return None if settings.turns is None else _made("rollout.turns", settings, settings, model, context)


def _made(
    setting: str, of: RolloutSettings | SourceSettings, settings: RolloutSettings, model: Model, context: int
) -> Interaction:
    what = f"{setting} {of.turns!r}"
    turns: Any = TURNS.find(of.turns, setting) if isinstance(of.turns, str) else of.turns
    if not callable(turns):
        raise RecipeError(f"{what} is a {type(turns).__name__}, not a function (prompt, trajectory) -> Reply or End")
    calls_at_once(turns, setting)
    return Interaction(
        turns,
        of.max_turns,
        context,
        settings.flow,
        of.turn_timeout_s,
        vocabulary=embedding_rows(model.model),
        setting=setting,
    )
