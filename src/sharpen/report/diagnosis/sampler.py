"""Illnesses of the two computations of one policy: that which draws, and that which is trained."""

from __future__ import annotations

from statistics import median

from sharpen.report.diagnosis.finding import Finding
from sharpen.report.diagnosis.history import History, in_steps, number, span, values

STEPS = 5
FLOAT32_NATS, NATS = 0.01, 0.05
"""Mean difference of a token's log-probabilities. Rounding is 1e-6 in float32, and about 0.01 in bfloat16."""
PROBLEM = 10.0
WITH_LAG = 5.0


def sampler_and_trainer_disagree(history: History) -> Finding | None:
    """The trainer gives what was drawn another probability than the sampler did."""
    rows = history.last(STEPS)
    found = values(rows, "mismatch/mean")
    if len(found) < STEPS:
        return None
    facts = history.facts
    lag, dtype = facts.integer("rollout.lag") or 0, facts.get("model.compute_dtype")
    exact = dtype == "float32" and facts.get("rollout.engine.name") == "local"
    bound = (FLOAT32_NATS if exact else NATS) * (WITH_LAG if lag else 1.0)
    if median(found) < bound:
        return None
    return Finding(
        "sampler_and_trainer_disagree",
        "problem" if median(found) >= PROBLEM * bound else "warning",
        "Sampler and trainer disagree",
        f"Their log-probabilities of the same tokens differ by {number(median(found))} nats on average in "
        f"{in_steps(span(rows))} (at most {number(max(values(rows, 'mismatch/max') or found))}), so the gradient is "
        f"of another policy than the one that drew"
        f"{f'; a lag of {lag} explains a part' if lag else ''}.",
        facts.advice(
            "Compute in float32: `model.compute_dtype`." if dtype != "float32" else "",
            "Lower `rollout.lag`." if lag else "",
            "Correct for it with `method.tis_cap` (2)." if facts.get("method.tis_cap") is None else "",
            "See whether `rollout.engine` serves the weights and the temperature that are trained.",
        ),
        span(rows),
        ("mismatch/mean", "mismatch/max", "ratio/noise"),
    )


def ratio_noise_above_clip_range(history: History) -> Finding | None:
    """Rounding alone moves a completion's ratio out of the clip range."""
    rows = history.last(STEPS)
    found, bound = values(rows, "ratio/noise"), history.facts.clip_range
    if len(found) < STEPS or bound is None or median(found) < bound:
        return None
    return Finding(
        "ratio_noise_above_clip_range",
        "warning",
        "Rounding decides what is clipped",
        f"Two computations of the same policy differ by {number(median(found))} in the log of a completion's ratio in "
        f"{in_steps(span(rows))}, and the clip range is {number(bound)}.",
        history.facts.advice(
            "Compute in float32: `model.compute_dtype`."
            if history.facts.get("model.compute_dtype") != "float32"
            else "",
            "Raise `method.eps_low` and `method.eps_high`.",
            "Raise `method.clip`." if history.facts.get("method.clip") is not None else "",
        ),
        span(rows),
        ("ratio/noise", "clip_fraction"),
    )
