"""The held-out measures among the rows of a run's metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sharpen.evaluation.estimators import Estimate
from sharpen.report.series import held_out


@dataclass(frozen=True, slots=True)
class Measured:
    """The held-out measures at a step; none if the run never measured."""

    step: int = 0
    measures: Mapping[str, Estimate] = field(default_factory=dict)


def before_and_after(rows: Sequence[Mapping[str, float]]) -> tuple[Measured, Measured]:
    """The first and the last held-out measures in a run's metrics."""
    measured = [Measured(int(row["step"]), found) for row in rows if (found := held_out(row))]
    return (measured[0], measured[-1]) if measured else (Measured(), Measured())
