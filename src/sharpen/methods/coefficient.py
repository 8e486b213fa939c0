"""A coefficient that changes during training: warmed up linearly, or adapted to keep a metric near a target."""

from dataclasses import dataclass
from typing import Literal

Rule = Literal["proportional", "double"]


@dataclass(frozen=True, slots=True)
class AdaptiveCoefficient:
    """Has the value ``initial``, reached by a linear rise over ``warmup_steps``.

    With a ``target``, its value is adapted after every step to the metric ``measured_by``: one of the updates or of
    their tokens (docs/metrics.md), not of the rollout.
    """

    initial: float
    warmup_steps: int = 0
    target: float | None = None
    rule: Rule = "proportional"
    horizon: int = 10_000
    measured_by: str = "kl"

    def at(self, step: int, value: float) -> float:
        """The coefficient at ``step``, counted from 1: the adapted ``value``, scaled by the warmup."""
        return value * min(1.0, step / self.warmup_steps) if self.warmup_steps else value

    def adapted(self, value: float, measured: float, samples: int) -> float:
        """The next value, after a step with ``samples`` trajectories."""
        if self.target is None:
            return value
        if self.rule == "double":
            return doubled_or_halved(value, measured, self.target)
        return proportional(value, measured, self.target, samples=samples, horizon=self.horizon)


def doubled_or_halved(beta: float, measured: float, target: float) -> float:
    r"""PPO's rule (Schulman et al. 2017, arXiv 1707.06347, section 4).

    .. math:: d < d_{targ}/1.5 ⇒ β/2, \quad d > 1.5\, d_{targ} ⇒ 2β
    """
    if measured < target / 1.5:
        return beta / 2
    return beta * 2 if measured > target * 1.5 else beta


def proportional(beta: float, measured: float, target: float, *, samples: int, horizon: int) -> float:
    r"""The rule of Ziegler et al. 2019 (arXiv 1909.08593, section 2.2), n samples after the last change.

    .. math:: β ← β \left(1 + \mathrm{clip}\left(\frac{d - d_{targ}}{d_{targ}}, -0.2, 0.2\right) \frac{n}{h}\right)
    """
    error = min(max((measured - target) / target, -0.2), 0.2)
    # Beyond the horizon, the factor could become negative and turn the penalty into a reward.
    return beta * (1 + error * min(samples / horizon, 1.0))
