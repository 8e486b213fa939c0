"""A run in one line, for the list of runs: cheap enough for hundreds, and made again only when its files changed."""

from __future__ import annotations

import math
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sharpen.errors import SharpenError
from sharpen.report.page.findings import findings
from sharpen.report.page.recipe_text import at, read_recipe
from sharpen.report.page.run_data import status_of
from sharpen.runs.folder import RunFolder
from sharpen.runs.lock import is_locked
from sharpen.runs.metric_catalogue import describe
from sharpen.serving.folder import FoundRun

Rows = Sequence[Mapping[str, float]]

MOST_CHARS = 200
POINTS = 60
WIDTH, HEIGHT = 120, 24
"""Of the small picture of the reward or the loss, in its own units."""
GRAVE = ("problem", "warning")


@dataclass(frozen=True, slots=True)
class Summary:
    run: FoundRun
    method: str = ""
    status: str = ""
    step: int = 0
    steps: str = ""
    measure: str = ""
    """What ``before`` and ``now`` are of: pass@1, or the first other held-out measure there is."""
    share: bool = False
    """Whether that is a share of 1."""
    before: float | None = None
    now: float | None = None
    reward: float | None = None
    changed_s: float | None = None
    """When its metrics changed last, in seconds since 1970."""
    findings: int = 0
    line: str = ""
    """The points of the small picture, as SVG has them."""
    problem: str = ""
    """What cannot be read of it."""


class Summaries:
    def __init__(self, most: int = 1_000) -> None:
        self._kept: OrderedDict[str, tuple[object, Summary]] = OrderedDict()
        self._most = most
        self._lock = threading.Lock()

    def of(self, run: FoundRun) -> Summary:
        looks = (_looks(run.path / "metrics.jsonl"), _looks(run.path / "recipe.yaml"), is_locked(run.path))
        with self._lock:
            kept = self._kept.get(run.id)
        if kept is not None and kept[0] == looks:
            return kept[1]
        summary = summary_of(run)
        with self._lock:
            self._kept[run.id] = (looks, summary)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return summary


def summary_of(run: FoundRun) -> Summary:
    try:
        return _summary_of(run)
    # What stands in the folder is anybody's, and may lack anything; the other runs are shown all the same.
    except Exception as error:  # noqa: BLE001
        return Summary(run, problem=unreadable(error))


def unreadable(error: Exception) -> str:
    """What is wrong with a run's files, as a sentence for the page."""
    return str(error) if isinstance(error, SharpenError | OSError) else f"{type(error).__name__}: {error}"


def _summary_of(run: FoundRun) -> Summary:
    folder = RunFolder(run.path)
    recipe = read_recipe(folder.recipe)
    in_metrics: list[str] = []
    rows = folder.read_metrics(say=in_metrics.append)
    found = findings(folder, rows, recipe=recipe, in_metrics=in_metrics)
    measure, values = _measured(rows)
    return Summary(
        run,
        method=_short(at(recipe, "method.name")),
        status=status_of(folder, recipe, rows),
        step=int(rows[-1]["step"]) if rows else 0,
        steps=_short(at(recipe, "training.steps")),
        measure=measure,
        share=describe(f"held_out/{measure}").share,
        before=values[0] if values else None,
        now=values[-1] if len(values) > 1 else None,
        reward=_last(rows, "reward/mean"),
        changed_s=_changed_s(folder.metrics),
        findings=sum(finding["severity"] in GRAVE for finding in found),
        line=sparkline(rows),
    )


def sparkline(rows: Rows) -> str:
    """The reward over the steps, or the loss, as the points of an SVG polyline; empty for fewer than two."""
    name = "reward/mean" if any("reward/mean" in row for row in rows) else "loss"
    values = [row[name] for row in rows if name in row and math.isfinite(row[name])]
    if len(values) < 2:
        return ""
    # Means of even parts: single values of a long run are noise at this size.
    count = min(POINTS, len(values))
    parts = [values[i * len(values) // count : (i + 1) * len(values) // count] for i in range(count)]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means), max(means)
    span = (high - low) or 1.0
    return " ".join(
        f"{WIDTH * i / (count - 1):.1f},{1 + (HEIGHT - 2) * (high - mean) / span:.1f}" for i, mean in enumerate(means)
    )


def _measured(rows: Rows) -> tuple[str, list[float]]:
    for name in ("pass@1", "pair_accuracy", "step_accuracy", "reward", "loss"):
        key = f"held_out/{name}"
        values = [row[key] for row in rows if key in row and math.isfinite(row[key])]
        if values:
            return name, values
    return "", []


def _last(rows: Rows, name: str) -> float | None:
    return next((row[name] for row in reversed(rows) if name in row and math.isfinite(row[name])), None)


def _short(value: Any) -> str:
    return "" if value is None else str(value)[:MOST_CHARS]


def _looks(file: Path) -> tuple[int, int, int] | None:
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _changed_s(file: Path) -> float | None:
    looks = _looks(file)
    return None if looks is None else looks[2] / 1e9
