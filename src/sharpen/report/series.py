"""Metrics prepared for plotting: one metric over steps, and stages side by side on one axis."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpen.evaluation.estimators import Estimate

Floats = NDArray[np.float64]

HELD_OUT = "held_out/"
"""How the held-out measures begin in a row of metrics."""


@dataclass(frozen=True, slots=True)
class Series:
    """The finite values of one metric, with their steps."""

    steps: Floats
    values: Floats


def series(rows: Sequence[Mapping[str, Any]], key: str) -> Series | None:
    """The metric ``key`` over ``step``; None if no row has a finite value for it."""
    points = [
        (float(row["step"]), float(row[key]))
        for row in rows
        if row.get("step") is not None and row.get(key) is not None and math.isfinite(row[key])
    ]
    if not points:
        return None
    steps, values = np.array(points).T
    return Series(steps, values)


def held_out(row: Mapping[str, float]) -> dict[str, Estimate]:
    """The held-out measures in a row of metrics."""
    names = [key.removeprefix(HELD_OUT) for key in row if key.startswith(HELD_OUT)]
    return {
        name: Estimate(
            row[f"{HELD_OUT}{name}"],
            row.get(f"{HELD_OUT}{name}_low", math.nan),
            row.get(f"{HELD_OUT}{name}_high", math.nan),
        )
        for name in names
        if not name.endswith(("_low", "_high"))
    }


def smooth(values: Floats) -> Floats:
    """Centred running mean over about a tenth of the values, with a narrower window towards the ends."""
    count, widest = len(values), len(values) // 20
    index = np.arange(count)
    # A wide window truncated on one side bends a rising curve at its ends; one that is too narrow shows the noise.
    half = np.clip(np.minimum(index, index[::-1]), widest // 3, widest)
    first, last = np.maximum(index - half, 0), np.minimum(index + half + 1, count)
    sums = np.concatenate([[0.0], np.cumsum(values)])
    return np.asarray((sums[last] - sums[first]) / (last - first))


class Track:
    """Stages side by side on one axis: stage i spans i to i + 1, whatever its number of steps."""

    def __init__(self, stages: Sequence[tuple[str, Sequence[Mapping[str, Any]]]]) -> None:
        self.stages = tuple(stages)
        self._lengths = [self._length(rows) for _, rows in self.stages]

    def x(self, stage: int, steps: Floats) -> Floats:
        """Axis positions of a stage's steps."""
        return np.asarray(stage + steps / self._lengths[stage])

    def ticks(self, per_stage: int) -> tuple[list[float], list[str]]:
        """Positions and labels of about ``per_stage`` round step numbers in each stage."""
        positions: list[float] = []
        labels: list[str] = []
        for index, length in enumerate(self._lengths):
            every = _round_number(length / per_stage)
            # The next stage starts where this one ends, and its 0 would overlap a label there.
            last = length * (1.0 if index == len(self._lengths) - 1 else 0.93)
            inside = np.arange(0, last + 1e-9, every)
            positions += [index + float(s) / length for s in inside]
            labels += [f"{s:g}" for s in inside]
        return positions, labels

    @staticmethod
    def _length(rows: Sequence[Mapping[str, Any]]) -> float:
        return max((float(row["step"]) for row in rows if row.get("step") is not None), default=0.0) or 1.0


def _round_number(value: float) -> float:
    value = max(value, 1.0)
    power = 10.0 ** math.floor(math.log10(value))
    return min(m * power for m in (1, 2, 5, 10) if m * power >= value)
