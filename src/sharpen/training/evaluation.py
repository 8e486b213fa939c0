"""Held-out measurements as metrics, and which of them is the best."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sharpen.errors import RecipeError
from sharpen.evaluation.estimators import Estimate
from sharpen.suggest import did_you_mean
from sharpen.training.metrics import Metrics


@dataclass(frozen=True, slots=True)
class HeldOutEvaluation:
    """``measure`` runs every ``every`` steps; ``best_by`` names the measure that decides which checkpoint is best."""

    measure: Callable[[], Mapping[str, Estimate]]
    every: int
    best_by: str | None

    def metrics(self) -> Metrics:
        """Measure the model as it is now.

        Raises:
            RecipeError: ``best_by`` is not among the measures.
        """
        started = time.perf_counter()
        metrics: Metrics = {}
        for name, estimate in self.measure().items():
            metrics[f"held_out/{name}"] = estimate.mean
            if estimate.low == estimate.low:
                metrics[f"held_out/{name}_low"] = estimate.low
                metrics[f"held_out/{name}_high"] = estimate.high
        if self.best_by is not None and f"held_out/{self.best_by}" not in metrics:
            known = [name.removeprefix("held_out/") for name in metrics]
            raise RecipeError(
                f"checkpoint.best: `{self.best_by}` is not measured.{did_you_mean(self.best_by, known)} "
                f"Known: {', '.join(known)}"
            )
        metrics["time/evaluation_s"] = time.perf_counter() - started
        return metrics

    def better(self, metrics: Metrics, best: float | None) -> float | None:
        """The value of ``best_by`` in ``metrics`` if it beats ``best``, else None."""
        if self.best_by is None:
            return None
        value = metrics[f"held_out/{self.best_by}"]
        if best is None:
            return value
        # A loss is best when it is lowest, everything else when it is highest; a tie does not count.
        lower = self.best_by.rpartition("/")[2] == "loss"
        not_better = value >= best if lower else value <= best
        return None if not_better else value
