"""Which settings of a run's recipe may be changed before the run is resumed, and which were."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from sharpen.recipe.compare import differences
from sharpen.recipe.schema import Recipe

_SOURCE = r"data\.sources\.[^.]+\."

_ORDINARY = re.compile(
    "|".join(
        (
            r"optimizer\..*",
            r"training\.(steps|tokens_per_microbatch|shared_prompt)",
            r"evaluation\.every|checkpoint\.best",
            r"model\.(path|device|gradient_checkpointing|compiled)",
            r"rollout\.(engine\.max_sequences|engine\.kv_gib|max_reward_failures|turn_timeout_s)",
            rf"{_SOURCE}turn_timeout_s|(data|{_SOURCE[:-2]})\.columns(\..*)?",
        )
    )
)
"""Settings that a user turns while a run goes on, or whose effect is compared by itself, as of `model.path`."""

_ROWS = re.compile(rf"data\.(train|held_out|demonstrations|mixed)|{_SOURCE}(train|held_out)")
"""Settings that say where rows are. The values of the rows are compared."""

_OWN_NAMES = re.compile(
    rf"reward|data\.columns|data\.chat_template_kwargs|{_SOURCE}(reward|columns|chat_template_kwargs)"
    r"|rollout\.engine\.settings"
)
"""Settings that hold names of the user's own. Elsewhere a setting that was not there before is newer than the run."""


def settings_to_keep(recipe: Recipe) -> dict[str, Any]:
    """What a checkpoint records of the recipe: all settings but the folder and those of checkpoints, logs and of
    `sharpen reward check`, which change no result and may be changed at any time."""
    tree = recipe.model_dump(mode="json", exclude={"run", "reward_check", "log", "checkpoint"})
    kept: dict[str, Any] = json.loads(json.dumps({**tree, "checkpoint": {"best": recipe.checkpoint.best}}))
    return kept


def changed_since(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """The path, the old and the new value of each setting that differs between two recipes as recorded."""
    yield from _changed(before, now, "")


def is_ordinary(path: str, before: Any, now: Any) -> bool:
    """Whether a changed setting needs no acceptance."""
    if _ROWS.fullmatch(path):
        return before is not None and now is not None
    return _ORDINARY.fullmatch(path) is not None


def _changed(before: Any, now: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if not isinstance(before, Mapping) or not isinstance(now, Mapping) or _OWN_NAMES.fullmatch(path):
        yield from differences(before, now, path=path)
        return
    for name in {**before, **now} if path == "data.sources" else before:
        if name in now or path == "data.sources":
            yield from _changed(before.get(name), now.get(name), f"{path}.{name}" if path else name)
