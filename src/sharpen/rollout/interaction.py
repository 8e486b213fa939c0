"""Conversations as the settings of a rollout ask for them."""

from __future__ import annotations

from sharpen.errors import RecipeError
from sharpen.rewards.execution.named import load_named
from sharpen.rollout.generation import Interaction
from sharpen.rollout.settings import RolloutSettings


def make_interaction(settings: RolloutSettings, context: int) -> Interaction | None:
    """None for trajectories of one turn; ``context`` is the model's, in tokens.

    Raises RecipeError if ``rollout.turns`` cannot be imported or is not a function.
    """
    if settings.turns is None:
        return None
    what = f"rollout.turns {settings.turns!r}"
    turns = load_named(settings.turns, what, RecipeError)
    if not callable(turns):
        raise RecipeError(f"{what} is a {type(turns).__name__}, not a function (prompt, trajectory) -> Reply or End")
    return Interaction(turns, settings.max_turns, context, settings.flow, settings.turn_timeout_s)
