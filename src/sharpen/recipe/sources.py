"""What a recipe's data sources and its other settings say of each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sharpen.data.settings import SourceSettings
from sharpen.rewards.reward import Reward
from sharpen.settings import not_blank

if TYPE_CHECKING:
    from sharpen.recipe.schema import Recipe


def has_common_reward(source: SourceSettings) -> bool:
    """Whether the recipe's top-level reward scores the completions of one of several sources."""
    return source.reward is None and source.task is None


def check_sources(recipe: Recipe) -> None:
    """Raises ValueError for a source without the reward that the method needs, and for turns given twice."""
    data, method = recipe.data, recipe.method
    if not data.sources:
        if method.needs_reward and recipe.reward is None and data.task is None:
            raise ValueError(f"method {method.name} needs a reward: give `reward`")
        return
    common = [name for name, source in data.sources.items() if has_common_reward(source)]
    if method.needs_reward and recipe.reward is None and common:
        raise ValueError(
            f"`data.sources.{common[0]}.reward`: method {method.name} needs a reward: give it here, or `reward` for "
            "all sources"
        )
    with_turns = [name for name, source in data.sources.items() if source.turns is not None]
    if with_turns and recipe.rollout.turns is not None:
        raise ValueError(
            f"`rollout.turns` is for all data sources, and source {with_turns[0]} has turns of its own: give them to "
            "each source that has several turns, and not to `rollout`"
        )
    for name, source in data.sources.items():
        check_reward_entries(source.reward, f"`data.sources.{name}.reward`: ")


def check_reward_entries(spec: Any, where: str = "") -> None:
    """Raises ValueError, which begins with ``where``, for what cannot specify a reward."""
    for entry in spec if isinstance(spec, list | tuple) else () if spec is None else (spec,):
        if not isinstance(entry, str | Mapping | Reward) and not callable(entry):
            raise ValueError(
                f"{where}a reward is a name, a mapping with a `name` or a list of these, and in Python also a "
                f"function, not {entry!r}"
            )
        not_blank(entry.get("name") if isinstance(entry, Mapping) else entry)
