"""What a diagnosis reads: the figures of a run so far."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from sharpen.report.diagnosis.facts import Facts
from sharpen.report.diagnosis.samples import StepSamples, Window

Row = Mapping[str, float]
"""The metrics of a step."""

HELD_OUT = "held_out/"
FIRST = 5
MEASURES = ("pass@1", "reward", "pair_accuracy", "step_accuracy", "loss")
"""The held-out measures that say whether a run got better, the first that is there."""


@dataclass(frozen=True, slots=True)
class Measured:
    """A held-out measure at one step, with its 95 % interval. ``sign`` is −1 where lower is better."""

    step: int
    mean: float
    low: float
    high: float
    sign: int

    def __str__(self) -> str:
        return f"{number(self.mean)} ({number(self.low)} to {number(self.high)}) at step {self.step}"

    def worse_than(self, other: Measured) -> bool:
        """Whether it is worse, and the two intervals have nothing in common.

        Each as wide as the wider: bootstrap gives a few prompts of equal results an interval without width.
        """
        width = max(self.high - self.low, other.high - other.low)
        return self.sign * (other.mean - self.mean) > width


@dataclass(frozen=True)
class History:
    """The rows of ``metrics.jsonl`` in the order of steps, and the samples of some recent steps.

    Of a long run, rows in the middle may be left out.
    """

    facts: Facts
    rows: Sequence[Row]
    samples: Sequence[StepSamples] = ()

    @cached_property
    def trained(self) -> list[Row]:
        """The rows of training steps; that of step 0 measures the model as it was."""
        return [row for row in self.rows if row["step"] > 0]

    def last(self, count: int) -> list[Row]:
        """The last training steps; empty if there are fewer than ``count``."""
        return self.trained[-count:] if len(self.trained) >= count else []

    @cached_property
    def draws(self) -> bool:
        """Whether the steps' completions are drawn from the policy, and scored.

        Given completions may have rewards too, such as the grades of preferences. With a lag, the last steps draw none.
        """
        return any("time/rollout_s" in row for row in self.trained[:FIRST])

    @cached_property
    def window(self) -> Window:
        """The samples of the recent steps together."""
        return Window.of(self.samples)

    @cached_property
    def part_weights(self) -> Mapping[str, float]:
        """The parts that the recipe gives a weight other than 0, with it; empty if they cannot be told apart.

        The list of rewards gives the parts in its order, each followed by parts of its own, as ``<name>/<part>``.
        """
        weights = self.facts.weights
        names: list[str] = []
        for name in self.window.parts:
            if not any(name.startswith(f"{outer}/") for outer in names):
                names.append(name)
        if weights is None or len(weights) != len(names):
            return {}
        return {name: weight for name, weight in zip(names, weights, strict=True) if weight}

    @cached_property
    def measure(self) -> str | None:
        """The held-out measure that says whether the run got better: that of ``checkpoint.best``, or the usual one."""
        best = self.facts.get("checkpoint.best")
        names = (best, *MEASURES) if isinstance(best, str) else MEASURES
        found = (name for row in reversed(self.rows) for name in names if f"{HELD_OUT}{name}" in row)
        return next(found, None)

    def held_out(self, measure: str) -> list[Measured]:
        """A held-out measure wherever it has an interval."""
        if measure not in self._held_out:
            key = f"{HELD_OUT}{measure}"
            low, high = f"{key}_low", f"{key}_high"
            sign = -1 if measure.rpartition("/")[2] == "loss" else 1
            self._held_out[measure] = [
                Measured(int(row["step"]), row[key], row[low], row[high], sign)
                for row in self.rows
                if low in row and high in row and key in row
            ]
        return self._held_out[measure]

    @cached_property
    def _held_out(self) -> dict[str, list[Measured]]:
        return {}

    def around(self, step: int, count: int) -> list[Row]:
        """So many training steps about a step."""
        nearest = bisect_left(self.trained, step, key=lambda row: int(row["step"]))
        begin = max(0, min(nearest, len(self.trained) - 1) - count // 2)
        return self.trained[begin : begin + count]


def values(rows: Sequence[Row], name: str) -> list[float]:
    """The finite values of a metric in these rows."""
    return [row[name] for row in rows if name in row and math.isfinite(row[name])]


def span(rows: Sequence[Row]) -> tuple[int, int]:
    """The first and the last step of these rows."""
    return int(rows[0]["step"]), int(rows[-1]["step"])


def in_steps(steps: tuple[int, int]) -> str:
    first, last = steps
    return f"step {first}" if first == last else f"steps {first} to {last}"


def number(value: float) -> str:
    """With three significant digits."""
    return f"{value:.3g}"


def share(value: float) -> str:
    """In percent, with a digit after the point below 10."""
    percent = 100 * value
    return f"{percent:.1f} %" if 0 < percent < 9.95 else f"{percent:.0f} %"
