"""What thresholds and advice need to know of the recipe, read from its plain tree.

The tree is that of a saved ``recipe.yaml`` or of `Recipe.model_dump`. A method of a user's own may lack any setting of
ours, or have another of that name, so each is read only if it is of the type that it has here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

_SETTING = re.compile(r"`([a-z_]+(?:\.[a-z_]+)+)`")


@dataclass(frozen=True)
class Facts:
    """A recipe's settings by their dotted names, such as ``method.eps_low``."""

    tree: Mapping[str, Any]

    def get(self, name: str) -> Any:
        """A setting's value; None if the recipe has none of that name."""
        value: Any = self.tree
        for key in name.split("."):
            if not isinstance(value, Mapping) or key not in value:
                return None
            value = value[key]
        return value

    def has(self, name: str) -> bool:
        """Whether the recipe has a setting of that name, be it null."""
        section, _, key = name.rpartition(".")
        inner = self.get(section)
        return isinstance(inner, Mapping) and key in inner

    def number(self, name: str) -> float | None:
        value = self.get(name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
        return float(value) if is_number else None

    def integer(self, name: str) -> int | None:
        value = self.number(name)
        return None if value is None else int(value)

    def advice(self, *options: str) -> str:
        """The options whose settings, in backticks, are all in this recipe, as sentences."""
        return " ".join(option for option in options if option and all(map(self.has, _SETTING.findall(option))))

    @cached_property
    def completions_per_step(self) -> int | None:
        """Completions drawn in a step, without those of further rounds of dynamic sampling."""
        prompts = self.integer("training.prompts_per_step")
        return None if prompts is None else prompts * (self.integer("method.group_size") or 1)

    @cached_property
    def relative_to_group(self) -> bool:
        """Whether a completion's advantage is relative to the others of its prompt, so that a group needs spread."""
        if (self.integer("method.group_size") or 1) < 2:
            return False
        if self.has("method.lam") or self.has("method.threshold"):  # a critic; what is right
            return False
        return self.get("method.baseline") not in ("none", "whitened")

    @cached_property
    def clip_range(self) -> float | None:
        """The smaller of the distances at which the ratio is clipped; None if it is not."""
        if self.get("method.form") == "kl":
            return None
        found = [self.number(f"method.{name}") for name in ("eps_low", "eps_high", "clip")]
        return min((bound for bound in found if bound is not None), default=None)

    @cached_property
    def weights(self) -> tuple[float, ...] | None:
        """The weight of each entry in the list of rewards; None if the recipe has no such list."""
        entries = self.get("reward")
        if not isinstance(entries, list | tuple):
            return None
        return tuple(map(_weight, entries))

    @cached_property
    def highest_reward(self) -> float:
        """The reward of a completion to which every reward of the list gives 1, as verifiers do at most."""
        return sum(weight for weight in self.weights or (1.0,) if weight > 0) or 1.0


def _weight(entry: object) -> float:
    if not isinstance(entry, Mapping):
        return 1.0
    weight = entry.get("weight")
    if isinstance(weight, int | float) and not isinstance(weight, bool):
        return float(weight)
    # A gate adds to the total only if it has a weight.
    return 0.0 if entry.get("gate") not in (None, False) else 1.0
