"""Illnesses of the updates: gradients that spike, and a loss that rises."""

from __future__ import annotations

import math
from statistics import fmean, median

from sharpen.report.diagnosis.finding import Finding
from sharpen.report.diagnosis.history import History, Row, in_steps, number, span, values

BEFORE = 20
"""Steps before a spike, with whose median it is compared. The first steps of a run settle down from large gradients."""
FIRST = 5
LOOKED_AT = 100
SPIKE, HUGE = 10.0, 100.0
"""Times the median. One huge spike is said, and several smaller ones."""
SEVERAL = 3
LOSS_STEPS = 10
RISEN = 1.2


def gradients_spike(history: History) -> Finding | None:
    """The gradient is suddenly larger than before by an order of magnitude, several times, or once by two."""
    rows = history.trained[-LOOKED_AT - BEFORE :]
    norms = [norm if math.isfinite(norm := row.get("grad_norm", 0.0)) else 0.0 for row in rows]
    smallest = min((norm for norm in norms if norm > 0.0), default=0.0)
    at_first = median(values(history.trained[:FIRST], "grad_norm") or [0.0])
    spikes: list[tuple[Row, float]] = []
    for at in range(BEFORE, len(rows)):
        # What the run began with is no spike later; and a quick look first: no median is below the smallest.
        if norms[at] > max(SPIKE * smallest, at_first):
            usual = _usual(norms[at - BEFORE : at])
            if usual is not None and norms[at] > SPIKE * usual:
                spikes.append((rows[at], norms[at] / usual))
    largest = max((times for _, times in spikes), default=0.0)
    if largest < HUGE and len(spikes) < SEVERAL:
        return None
    row, times = max(spikes, key=lambda spike: spike[1])
    bound = history.facts.number("optimizer.max_grad_norm")
    return Finding(
        "gradients_spike",
        "warning",
        "The gradient spikes",
        f"At step {row['step']:g} its norm was {number(row['grad_norm'])}, {number(times)} times the median of the "
        f"{BEFORE} steps before"
        f"{f'; {len(spikes)} of the last {len(rows)} steps are above {SPIKE:g} times' if len(spikes) > 1 else ''}.",
        history.facts.advice(
            "Set `optimizer.max_grad_norm` (1), which bounds what a spike can do."
            if bound is None
            else f"`optimizer.max_grad_norm` {number(bound)} bounds what a spike can do.",
            "Lower `optimizer.learning_rate`, or warm it up over more `optimizer.warmup_steps`.",
            "Look at the samples of those steps for broken data or rewards of another size.",
        ),
        (int(spikes[0][0]["step"]), int(spikes[-1][0]["step"])),
        ("grad_norm", "loss"),
    )


def loss_rises(history: History) -> Finding | None:
    """The training loss of a method that imitates or compares stays above that of the first step, of the model as it
    was."""
    if history.draws or len(history.trained) < 2 * LOSS_STEPS:
        return None
    first, last = history.trained[0], history.last(LOSS_STEPS)
    before, now = first.get("loss", math.nan), values(last, "loss")
    if not now or not before > 0 or min(now) < RISEN * before:
        return None
    return Finding(
        "loss_rises",
        "problem",
        "The training loss is above where it began",
        f"It was {number(before)} at step {first['step']:g}, before the first update, and is {number(fmean(now))} in "
        f"{in_steps(span(last))}.",
        history.facts.advice(
            "Lower `optimizer.learning_rate`; a rate ten times as small is worth a try.",
            "Warm it up over more `optimizer.warmup_steps`.",
        ),
        (int(first["step"]), span(last)[1]),
        ("loss", "grad_norm"),
    )


def _usual(norms: list[float]) -> float | None:
    """The median of the steps that had a gradient; None if too few had."""
    positive = [norm for norm in norms if norm > 0.0]
    return median(positive) if len(positive) >= BEFORE // 2 else None
