"""The current values of a method's adaptive coefficients."""

from __future__ import annotations

from collections.abc import Mapping

from sharpen.methods.coefficient import AdaptiveCoefficient


class Coefficients:
    """``values`` by name, before any warmup."""

    def __init__(self, coefficients: Mapping[str, AdaptiveCoefficient]) -> None:
        self._coefficients = coefficients
        self.values = {name: c.initial for name, c in coefficients.items()}

    def at(self, step: int) -> dict[str, float]:
        """The coefficients of ``step``, counted from 1."""
        return {name: c.at(step, self.values[name]) for name, c in self._coefficients.items()}

    def measured_by(self, metric: str) -> bool:
        """Whether one of them is adapted to this metric."""
        return any(coefficient.measured_by == metric for coefficient in self._coefficients.values())

    def adapt(self, metrics: Mapping[str, float], samples: int) -> None:
        """Adapt them to the metrics of a step with ``samples`` trajectories."""
        for name, coefficient in self._coefficients.items():
            if coefficient.measured_by in metrics:
                measured = metrics[coefficient.measured_by]
                self.values[name] = coefficient.adapted(self.values[name], measured, samples)
