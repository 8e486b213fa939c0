"""The held-out measures among the rows of a run's metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sharpen.evaluation.estimators import Estimate

PREFIX = "held_out/"


@dataclass(frozen=True, slots=True)
class Measured:
    """The held-out measures at a step; none if the run never measured."""

    step: int = 0
    measures: Mapping[str, Estimate] = field(default_factory=dict)


def before_and_after(rows: Sequence[Mapping[str, float]]) -> tuple[Measured, Measured]:
    """The first and the last held-out measures in a run's metrics."""
    measured = [row for row in rows if any(key.startswith(PREFIX) for key in row)]
    if not measured:
        return Measured(), Measured()
    return _measured(measured[0]), _measured(measured[-1])


def _measured(row: Mapping[str, float]) -> Measured:
    names = [key.removeprefix(PREFIX) for key in row if key.startswith(PREFIX)]
    nan = float("nan")
    measures = {
        name: Estimate(
            row[f"{PREFIX}{name}"], row.get(f"{PREFIX}{name}_low", nan), row.get(f"{PREFIX}{name}_high", nan)
        )
        for name in names
        if not name.endswith(("_low", "_high"))
    }
    return Measured(int(row["step"]), measures)
