"""Conversations as the settings of a rollout ask for them."""

from __future__ import annotations

from typing import Any

from sharpen.errors import RecipeError
from sharpen.models.model import Model
from sharpen.registry import load_named
from sharpen.rollout.answers import calls_at_once
from sharpen.rollout.generation import Interaction
from sharpen.rollout.settings import RolloutSettings


def make_interaction(settings: RolloutSettings, model: Model, context: int) -> Interaction | None:
    """Conversations with the model, of at most ``context`` tokens; None for trajectories of one turn.

    Raises RecipeError if ``rollout.turns`` cannot be imported, is not a function, or has a wrong ``at_once``.
    """
    if settings.turns is None:
        return None
    what = f"rollout.turns {settings.turns!r}"
    turns = load_named(settings.turns, what, RecipeError) if isinstance(settings.turns, str) else settings.turns
    if not callable(turns):
        raise RecipeError(f"{what} is a {type(turns).__name__}, not a function (prompt, trajectory) -> Reply or End")
    embedding: Any = model.model.get_input_embeddings()  # type: ignore[operator]
    calls_at_once(turns)
    return Interaction(
        turns,
        settings.max_turns,
        context,
        settings.flow,
        settings.turn_timeout_s,
        vocabulary=len(embedding.weight),
    )
