"""The names of the measures that an evaluation will have, known before anything is measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sharpen.rewards.reward import Reward
from sharpen.suggest import did_you_mean

LOW, HIGH = "_low", "_high"
"""Endings of a measure's name in the metrics: the ends of its interval."""


@dataclass(frozen=True, slots=True)
class MeasureNames:
    """``names`` are measured. Others that begin with ``others`` may be: a user's own reward or method gives them."""

    names: tuple[str, ...]
    others: str | None = None

    def __contains__(self, name: str) -> bool:
        measure = name.removesuffix(LOW).removesuffix(HIGH)
        return measure in self.names or (self.others is not None and measure.startswith(self.others))

    def prefixed(self, prefix: str) -> MeasureNames:
        """The names of measures that are kept apart from those of other data."""
        others = None if self.others is None else prefix + self.others
        return replace(self, names=tuple(prefix + name for name in self.names), others=others)

    def unknown(self, name: str) -> str:
        """What to say of a name that is not among them."""
        return f"`{name}` is not measured.{did_you_mean(name, self.names)} Known: {', '.join(self.names)}"


def measures_of_answers(reward: Reward, ks: Sequence[int]) -> MeasureNames:
    """What `sharpen.evaluation.runner.evaluate` measures."""
    votes = [k for k in ks if k > 1] if reward.has_answer else []
    parts = reward.part_names
    known = [f"reward/{part}" for part in sorted(parts)] if parts is not None and len(parts) > 1 else []
    names = (*(f"pass@{k}" for k in ks), *(f"maj@{k}" for k in votes), "reward", *known, "length", "truncated")
    return MeasureNames(names, "reward/" if parts is None else None)


def measures_of_completions(figures: Sequence[str] | None) -> MeasureNames:
    """The loss and a method's figures; None if the method does not say which it has."""
    return MeasureNames(("loss", *(figures or ())), "" if figures is None else None)
