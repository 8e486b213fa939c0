"""The metrics of a run over its steps as the page draws them: bounded, and with the peaks of a long run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sharpen.runs.metric_catalogue import HELD_OUT

Floats = NDArray[np.float64]
Rows = Sequence[Mapping[str, float]]

MOST_ROWS = 2_000
"""A screen has fewer pixels; more would only make the page heavy."""


@dataclass(frozen=True, slots=True)
class Totals:
    """The time and the tokens of the rows before some row."""

    time_s: float = 0.0
    tokens: float = 0.0


def totals(rows: Rows, before: Totals | None = None) -> Totals:
    """``before``, and these rows."""
    before = before or Totals()
    return Totals(before.time_s + sum(map(_seconds, rows)), before.tokens + sum(_tokens(rows)))


def series_data(rows: Rows, most: int = MOST_ROWS, before: Totals | None = None) -> dict[str, Any]:
    """``step``, the time and tokens up to each row, and the ``values`` of every metric; None where there is none.

    ``time_s`` counts steps and evaluations, ``tokens`` those drawn, or those trained on where a run draws none. Of
    more than ``most`` rows those that a picture needs are kept, see `kept_rows`. Numbers have 7 significant digits.
    ``before`` is what earlier rows took.
    """
    names = list(dict.fromkeys(name for row in rows for name in row if name != "step"))
    kept = kept_rows(rows, names, most)
    before = before or Totals()
    time_s = before.time_s + np.cumsum([_seconds(row) for row in rows])
    tokens = before.tokens + np.cumsum(_tokens(rows))
    return {
        "step": [int(rows[i]["step"]) for i in kept],
        "time_s": [_number(time_s[i]) for i in kept],
        "tokens": [round(tokens[i]) for i in kept],
        "values": {name: [_number(rows[i].get(name)) for i in kept] for name in names},
    }


def kept_rows(rows: Rows, names: Sequence[str], most: int = MOST_ROWS) -> list[int]:
    """The places of at most ``most`` rows, in their order.

    The first and the last row, rows with held-out measures, and the lowest and highest value of each metric stay, as
    far as they fill no more than three quarters of the room. The rest is divided evenly over the run: of each part its
    first row and the one that is furthest from what is usual, so that a spike of a single step is not lost.
    """
    if len(rows) <= most:
        return list(range(len(rows)))
    measured = [i for i, row in enumerate(rows) if any(name.startswith(HELD_OUT) for name in row)]
    half = most // 2
    if len(measured) > half:
        measured = [measured[i] for i in np.linspace(0, len(measured) - 1, half).round().astype(int)]
    kept = {0, len(rows) - 1, *measured}
    unusual = np.zeros(len(rows))
    for name in names:
        values = np.array([row.get(name, math.nan) for row in rows], dtype=np.float64)
        values[~np.isfinite(values)] = math.nan
        if np.isnan(values).all():
            continue
        if len(kept) < most * 3 // 4 - 1:
            kept |= {int(np.nanargmin(values)), int(np.nanargmax(values))}
        if not name.startswith(HELD_OUT):
            unusual = np.fmax(unusual, _distance(values))
    parts = np.array_split(np.arange(len(rows)), (most - len(kept)) // 2)
    kept |= {int(place) for part in parts for place in (part[0], part[unusual[part].argmax()])}
    return sorted(kept)


def _distance(values: Floats) -> Floats:
    """How far each value is from the median, in median absolute deviations."""
    away = np.abs(values - np.nanmedian(values))
    usual = np.nanmedian(away)
    # More than half of the values are equal: whatever is not stands out.
    return away / (usual if usual > 0 else np.nanmean(away) or 1.0)


def _seconds(row: Mapping[str, float]) -> float:
    return sum(_finite(row.get(f"time/{part}_s")) for part in ("step", "evaluation"))


def _tokens(rows: Rows) -> list[float]:
    part = "rollout" if any("tokens_per_s/rollout" in row for row in rows) else "training"
    return [_finite(row.get(f"tokens_per_s/{part}")) * _finite(row.get(f"time/{part}_s")) for row in rows]


def _finite(value: float | None) -> float:
    return value if value is not None and math.isfinite(value) else 0.0


def _number(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.7g}")
