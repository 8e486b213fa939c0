"""Which code of the user's own decides what a run does."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from sharpen.data.tasks.registry import GYM_PREFIX
from sharpen.in_memory import in_memory
from sharpen.recipe.schema import Recipe
from sharpen.rewards.function import FunctionReward
from sharpen.rewards.reward import Reward
from sharpen.system.source_files import code_hashes, source_hash

GIVEN = ""
"""Stands for the file of a function or class that was given in Python and has no name."""

_CODE = re.compile(
    r"(reward|method|method\.name|rollout\.turns|rollout\.engine\.name|data\.task"
    r"|data\.sources\.[^.]+\.(reward|turns|task))(\[\d+\])?(\.name|\.function)?"
)


def code_read(recipe: Recipe) -> dict[str, dict[str, str]]:
    """Hashes of the source of the user's rewards, functions of turns, tasks, engines and methods, by the setting that
    names them and by file.

    What comes with sharpen is left out, and so is what Python does not know the source of.
    """
    recorded, tree = recipe.model_dump(mode="json"), recipe.tree()
    found: dict[str, dict[str, str]] = {}
    for setting, name in named_code(recorded):
        if hashes := code_hashes(name.partition("?")[0].rpartition(":")[0]):
            found[setting] = hashes
    for setting, part in in_memory(recorded, tree):
        hashed = [source_hash(thing) for thing in _code_of(part)] if _CODE.fullmatch(setting) else []
        if known := [one for one in hashed if one is not None]:
            found[setting] = {GIVEN: "+".join(known)}
    return found


def named_code(recorded: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The settings of a recipe, as saved, that name code of the user's own, each with the name."""
    for setting, name in _texts(recorded, ""):
        sharpens = name.startswith(("sharpen.", GYM_PREFIX))
        if _CODE.fullmatch(setting) and ":" in name and not sharpens:
            yield setting, name


def _texts(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _texts(inner, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            yield from _texts(inner, f"{path}[{place}]")


def _code_of(part: Any) -> list[Any]:
    """The functions of a reward, or the thing itself."""
    if not isinstance(part, Reward):
        return [part]
    return [leaf.function if isinstance(leaf, FunctionReward) else leaf for leaf in part.leaves()]
