"""The names of the measures that an evaluation will have, known before anything is measured."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sharpen.suggest import did_you_mean

LOW, HIGH = "_low", "_high"
"""Endings of a measure's name in the metrics: the ends of its interval."""


@dataclass(frozen=True, slots=True)
class MeasureNames:
    """``names`` are measured. Others that begin with one of ``others`` may be: a user's own code gives them."""

    names: tuple[str, ...]
    others: tuple[str, ...] = ()

    def __contains__(self, name: str) -> bool:
        measure = name.removesuffix(LOW).removesuffix(HIGH)
        return measure in self.names or measure.startswith(self.others)

    def prefixed(self, prefix: str) -> MeasureNames:
        """The names of the measures of one of several data sources."""
        return MeasureNames(tuple(prefix + name for name in self.names), tuple(prefix + one for one in self.others))

    def joined(self, *more: MeasureNames) -> MeasureNames:
        everything = (self, *more)
        return MeasureNames(
            tuple(name for one in everything for name in one.names),
            tuple(prefix for one in everything for prefix in one.others),
        )

    def unknown(self, name: str) -> str:
        """What to say of a name that is not among them."""
        return f"`{name}` is not measured.{did_you_mean(name, self.names)} Known: {', '.join(self.names)}"


def measures_of_answers(parts: Collection[str] | None, ks: Sequence[int], *, votes: bool) -> MeasureNames:
    """What `sharpen.evaluation.runner.evaluate` measures with a reward of these parts, None if they are not known.

    ``votes`` says whether it has an answer to vote on.
    """
    known = [f"reward/{part}" for part in sorted(set(parts))] if parts is not None and len(set(parts)) > 1 else []
    voted = [f"maj@{k}" for k in ks if k > 1 and votes]
    names = (*(f"pass@{k}" for k in ks), *voted, "reward", *known, "length", "truncated")
    return MeasureNames(names, ("reward/",) if parts is None else ())


def measures_of_completions(figures: Sequence[str] | None) -> MeasureNames:
    """The loss and a method's figures; None if the method does not say which it has."""
    return MeasureNames(("loss", *(figures or ())), ("",) if figures is None else ())
