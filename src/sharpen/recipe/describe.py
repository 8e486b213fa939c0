"""Descriptions of everything that a recipe can set: its sections, the methods and the rewards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
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
    return tuple(Part("method", name, about(kind), settings_of_method(kind)) for name, kind in METHODS.items())


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

    Raises:
        RecipeError: there is none, with the nearest known name.
    """
    known = (*sections(), *methods(), *rewards())
    found = tuple(part for part in known if part.name == name)
    if found:
        return found + tuple(part for part in known if part.name.startswith(f"{name}."))
    section, _, setting = name.rpartition(".")
    alone = [_alone(part, setting) for part in known if part.name == (section or TOP)]
    if found := tuple(part for part in alone if part.settings):
        return found
    paths = [f"{part.name}.{s.name}" for part in sections() for s in part.settings]
    names = [part.name for part in known]
    raise RecipeError(
        f"there is no section, method, reward or setting `{name}`.{_nearest(name, names, paths)} Sections: "
        f"{', '.join(part.name for part in sections())}. Methods: {', '.join(METHODS)}. Rewards: {', '.join(REWARDS)}"
    )


def _nearest(name: str, names: Sequence[str], paths: Sequence[str]) -> str:
    """The nearest name; of a path, the nearest path; of a bare setting's name, the path of that setting."""
    ends = [path for path in paths if path.rpartition(".")[2] == name]
    if ends:
        return f" Did you mean {' or '.join(f'`{path}`' for path in ends)}?"
    return did_you_mean(name, paths if "." in name else names)


def _alone(part: Part, setting: str) -> Part:
    return Part(part.kind, part.name, part.about, tuple(s for s in part.settings if s.name == setting))


def _sections(kind: type[BaseModel], name: str, within: str) -> Iterator[Part]:
    found = described(kind, outer=Recipe.effects if within else (), within=within)
    only = tuple(effect.only for effect in Recipe.effects if effect.setting == name)
    yield Part("section", name, about(kind), found, only)
    for setting in found:
        # A method's section has the settings of the method.
        if setting.section is not None and setting.section.model_fields:
            path = f"{within}{setting.name}"
            yield from _sections(setting.section, path, f"{path}.")
