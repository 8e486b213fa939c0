"""Descriptions of everything that a recipe can set: its sections, the methods and the rewards."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel

from sharpen.describe import Setting, about, described, flattened
from sharpen.errors import RecipeError
from sharpen.methods import METHODS
from sharpen.methods.describe import settings as settings_of_method
from sharpen.recipe.schema import Recipe
from sharpen.rewards.kinds import REWARDS
from sharpen.rewards.registry import Weighting
from sharpen.suggest import did_you_mean

TOP = "recipe"
"""What the settings outside all sections are called."""


@dataclass(frozen=True, slots=True)
class Part:
    """A section, a method or a reward with its settings; ``only`` says when the whole section has an effect."""

    kind: Literal["section", "method", "reward"]
    name: str
    about: str
    settings: tuple[Setting, ...]
    only: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "about": self.about,
            **({"only": list(self.only)} if self.only else {}),
            "settings": [setting.to_json() for setting in self.settings],
        }


def sections() -> tuple[Part, ...]:
    """The sections of a recipe in order, each before those within it, and the settings outside sections first."""
    return tuple(_sections(Recipe, TOP, ""))


def methods() -> tuple[Part, ...]:
    """The methods with their settings, which say too when they have an effect in a recipe."""
    return tuple(
        Part("method", name, about(kind), tuple(map(_in_recipe, settings_of_method(kind))))
        for name, kind in METHODS.items()
    )


def _in_recipe(setting: Setting) -> Setting:
    only = tuple(effect.only for effect in Recipe.effects if effect.setting == f"method.{setting.name}")
    return replace(setting, only=(*setting.only, *only))


def rewards() -> tuple[Part, ...]:
    """The rewards with their settings; those that every entry of a list may have come last."""
    common = tuple(flattened(Weighting))
    functions_only = tuple(s for s in common if s.name.partition(".")[0] == "call")
    parts = []
    for name, kind in REWARDS.items():
        shared = [s for s in common if kind.takes_call or s not in functions_only]
        parts.append(Part("reward", name, about(kind.described_by), (*described(kind.settings), *shared)))
    return tuple(parts)


def find(name: str) -> tuple[Part, ...]:
    """The parts of that name: a section with those within it, a method, a reward, or one setting of a section.

    Also a section or setting of methods or rewards, with or without ``method.``, ``reward.`` or the name of one before
    it; methods in which it is the same are one part. In ``data.sources.NAME.share``, NAME is any name.

    Raises:
        RecipeError: there is none, with the nearest known name.
    """
    known = (*sections(), *methods(), *rewards())
    name = re.sub(r"^data\.sources\.[^.]+\.(?=[^.]+$)", "data.sources.", name)
    found = tuple(part for part in known if part.name == name)
    if found:
        return found + tuple(part for part in known if part.name.startswith(f"{name}."))
    section, _, setting = name.rpartition(".")
    alone = [_alone(part, setting) for part in known if part.name == (section or TOP)]
    if not section:
        alone += [_alone(part, setting) for part in sections() if part.name != TOP]
    if found := (*(part for part in alone if part.settings), *_within(name)):
        return found
    paths = [f"{part.name}.{s.name}" for part in known if part.kind == "section" for s in part.settings]
    names = [part.name for part in known]
    names += [s.name for part in known if part.kind != "section" for s in part.settings] + paths
    nearest = did_you_mean(name, paths if section else names)
    raise RecipeError(
        f"there is no section, method, reward or setting `{name}`.{nearest} Sections: "
        f"{', '.join(part.name for part in sections())}. Methods: {', '.join(METHODS)}. Rewards: {', '.join(REWARDS)}"
    )


def _within(name: str) -> tuple[Part, ...]:
    """The setting or section of that name in methods and rewards."""
    first, _, rest = name.partition(".")
    everything = Part("reward", "every reward", about(Weighting), tuple(flattened(Weighting)))
    if rest:
        named = [_under(part, rest) for part in (*methods(), *rewards()) if part.name == first]
        if found := tuple(part for part in named if part.settings):
            return found
    path = rest if first in ("method", "reward") and rest else name
    if first != "method" and (common := _under(everything, path)).settings:
        return (common,)
    parts = [
        *(methods() if first != "reward" or not rest else ()),
        *(rewards() if first != "method" or not rest else ()),
    ]
    merged: list[Part] = []
    for part in (_under(part, path) for part in parts):
        same = next((i for i, one in enumerate(merged) if (one.kind, one.settings) == (part.kind, part.settings)), None)
        if same is not None:
            merged[same] = replace(merged[same], name=f"{merged[same].name}, {part.name}")
        elif part.settings:
            # What a method is, is not about one of its settings.
            merged.append(replace(part, about=""))
    return tuple(merged)


def _under(part: Part, path: str) -> Part:
    """The part with only the settings of that path, or within it."""
    settings = tuple(s for s in part.settings if s.name == path or s.name.startswith(f"{path}."))
    return replace(part, settings=settings)


def _alone(part: Part, setting: str) -> Part:
    return replace(part, settings=tuple(s for s in part.settings if s.name == setting))


def _sections(kind: type[BaseModel], name: str, within: str) -> Iterator[Part]:
    found = described(kind, outer=Recipe.effects if within else (), within=within)
    only = tuple(effect.only for effect in Recipe.effects if effect.setting == name)
    yield Part("section", name, about(kind), found, only)
    for setting in found:
        # A method's section has the settings of the method.
        if setting.section is not None and setting.section.model_fields:
            path = f"{within}{setting.name}"
            yield from _sections(setting.section, path, f"{path}.")
