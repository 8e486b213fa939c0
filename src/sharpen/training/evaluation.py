"""Held-out measurements as metrics, and which of them is the best."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from sharpen.errors import RecipeError
from sharpen.evaluation.measures import HIGH, LOW, MeasureNames
from sharpen.evaluation.runner import Evaluation
from sharpen.runs.metric_catalogue import describe_measure
from sharpen.training.metrics import Metrics

PREFIX = "held_out/"


@dataclass(frozen=True, slots=True)
class HeldOutEvaluation:
    """``measure`` runs every ``every`` steps; ``best_by`` names the measure that decides which checkpoint is best."""

    measure: Callable[[], Evaluation]
    every: int
    best_by: str | None

    def measured(self) -> tuple[Metrics, Evaluation]:
        """Measure the model as it is now. A measure that applied to no row is left out of the metrics."""
        started = time.perf_counter()
        metrics: Metrics = {}
        evaluation = self.measure()
        for name, estimate in evaluation.measures.items():
            of_name = {"": estimate.mean, LOW: estimate.low, HIGH: estimate.high}
            metrics |= {f"{PREFIX}{name}{end}": v for end, v in of_name.items() if not math.isnan(v)}
        metrics["time/evaluation_s"] = time.perf_counter() - started
        return metrics, evaluation

    def check(self, metrics: Metrics) -> None:
        """Raises RecipeError if ``best_by`` is not among the first metrics: a user's own code names some of them."""
        if self.best_by is not None and f"{PREFIX}{self.best_by}" not in metrics:
            measured = MeasureNames(tuple(key.removeprefix(PREFIX) for key in metrics if key.startswith(PREFIX)))
            raise RecipeError(f"checkpoint.best: {measured.unknown(self.best_by)}")

    def better(self, metrics: Metrics, best: float | None) -> float | None:
        """The value of ``best_by`` in ``metrics`` if it beats ``best``, else None. NaN beats nothing."""
        if self.best_by is None:
            return None
        value = metrics.get(f"{PREFIX}{self.best_by}", math.nan)
        if math.isnan(value):
            return None
        if best is None or math.isnan(best):
            return value
        # What the catalogue does not know, such as a figure of a user's method, is best when it is highest; a tie does
        # not count.
        lower = describe_measure(self.best_by).direction == "down"
        not_better = value >= best if lower else value <= best
        return None if not_better else value
