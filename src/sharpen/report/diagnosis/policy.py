"""Illnesses of the policy: how it explores, and how far it goes from where it was."""

from __future__ import annotations

from statistics import fmean, median

from sharpen.report.diagnosis.comparing import risen
from sharpen.report.diagnosis.finding import Finding
from sharpen.report.diagnosis.history import History, in_steps, number, share, span, values

STEPS = 10
START = 5
COLLAPSED = 0.1
"""Share of the entropy at the start below which the policy hardly explores."""
SOLVED = 0.9
"""Share of the highest reward from which on low entropy is what one wants."""
GROWN = 3.0
KL_NATS = 1.0
"""Per token. Usual runs stay below 0.1; at 1 nat the reference gives a usual token a third of its probability."""
TARGET = 4.0
"""Times a target from which on the penalty does not keep it."""
CLIPPED, SEQUENCES_CLIPPED = 0.2, 0.75
SEQUENCE_RANGE = 0.01
"""Clip ranges below this are of the ratio of a whole completion, which clips a hundred times as much and learns."""


def entropy_collapsed(history: History) -> Finding | None:
    """The policy hardly explores any more, and the reward no longer rises, below its maximum."""
    rows = history.last(STEPS)
    start, now = values(history.trained[:START], "entropy"), values(rows, "entropy")
    rewards = values(rows, "reward/mean")
    if len(history.trained) < 3 * STEPS or not start or not now or not rewards or median(start) <= 0:
        return None
    before = values(history.trained[-2 * STEPS : -STEPS], "reward/mean")
    solved = fmean(rewards) >= SOLVED * history.facts.highest_reward
    if max(now) > COLLAPSED * median(start) or solved or risen(before, rewards):
        return None
    return Finding(
        "entropy_collapsed",
        "warning",
        "The entropy has collapsed",
        f"It was {number(median(start))} nats per token in the first steps and is {number(median(now))} in "
        f"{in_steps(span(rows))}: completions of a prompt are nearly the same, and the reward stays at "
        f"{number(fmean(rewards))}.",
        history.facts.advice(
            "A higher `method.eps_high` (0.28) lets unlikely tokens gain more.",
            "`method.entropy_coef` (0.001) rewards entropy." if not history.facts.get("method.entropy_coef") else "",
            "A lower `optimizer.learning_rate` or a higher `method.beta` slows the collapse; a checkpoint from before "
            "it is a better place to go on from than the last.",
        ),
        span(rows),
        ("entropy", "reward/mean", "groups/zero_spread"),
    )


def entropy_explodes(history: History) -> Finding | None:
    """The policy writes ever more at random, and the reward is not above what it was."""
    rows = history.last(STEPS)
    start, now = values(history.trained[:START], "entropy"), values(rows, "entropy")
    first, rewards = values(history.trained[:STEPS], "reward/mean"), values(rows, "reward/mean")
    if len(history.trained) < 2 * STEPS or not start or not now or not rewards or not first:
        return None
    # From almost nothing, a multiple is still little.
    if min(now) < GROWN * median(start) or median(now) < 0.3 or fmean(rewards) > fmean(first):
        return None
    return Finding(
        "entropy_explodes",
        "problem",
        "The entropy explodes",
        f"The entropy was {number(median(start))} nats per token in the first steps and is {number(median(now))} in "
        f"{in_steps(span(rows))}, while the reward went from {number(fmean(first))} to {number(fmean(rewards))}.",
        history.facts.advice(
            "Lower `optimizer.learning_rate`.",
            "Lower `method.entropy_coef`." if history.facts.get("method.entropy_coef") else "",
            "A higher `method.beta` keeps the policy near the reference.",
        ),
        span(rows),
        ("entropy", "reward/mean"),
    )


def kl_runs_away(history: History) -> Finding | None:
    """The policy is far from the reference, or from the target that the penalty is adapted to.

    The median over steps: the mean of a step may come from a single token far below the reference.
    """
    rows = history.last(STEPS)
    facts, found = history.facts, values(rows, "kl")
    if len(found) < STEPS:
        return None
    target, kl = facts.number("method.kl.target"), median(found)
    bound = KL_NATS if target is None else TARGET * target
    if kl < bound:
        return None
    beta = values(rows, "beta")
    return Finding(
        "kl_runs_away",
        "warning",
        "KL runs away",
        f"The policy is {number(kl)} nats per token away from the reference in {in_steps(span(rows))}"
        f"{f' at a penalty of beta {number(beta[-1])}' if beta else ''}; "
        f"{'usual runs stay below 0.1' if target is None else f'the target is {number(target)}'}.",
        facts.advice(
            "A higher `method.beta` keeps the policy near the reference, and a lower `optimizer.learning_rate` makes "
            "it leave more slowly.",
            "A smaller `method.kl.horizon` adapts beta sooner."
            if target is not None
            else "`method.kl.target` adapts beta to what you allow.",
        ),
        span(rows),
        ("kl", "beta"),
    )


def kl_old_runs_away(history: History) -> Finding | None:
    """PPO's penalty on KL(π_old ‖ π) does not keep it near its target."""
    rows = history.last(STEPS)
    found, target = values(rows, "kl_old"), history.facts.number("method.old_kl_target")
    if len(found) < STEPS or target is None or median(found) < TARGET * target:
        return None
    return Finding(
        "kl_old_runs_away",
        "warning",
        "KL to the old policy is far above its target",
        f"KL(π_old ‖ π) is {number(median(found))} nats per token after the updates of {in_steps(span(rows))}; the "
        f"target is {number(target)}.",
        history.facts.advice(
            "Lower `optimizer.learning_rate`, `method.minibatches` or `method.updates_per_rollout`.",
            "Begin with a higher `method.old_kl_coef`.",
        ),
        span(rows),
        ("kl_old", "old_kl"),
    )


def clip_fraction_high(history: History) -> Finding | None:
    """Much of what was drawn is clipped out of the gradient."""
    rows = history.last(STEPS)
    found, bound = values(rows, "clip_fraction"), history.facts.clip_range
    if len(found) < STEPS or bound is None:
        return None
    allowed = SEQUENCES_CLIPPED if bound < SEQUENCE_RANGE else CLIPPED
    if fmean(found) < allowed:
        return None
    lag = history.facts.integer("rollout.lag") or 0
    return Finding(
        "clip_fraction_high",
        "warning",
        "The clip fraction is high",
        f"{share(fmean(found))} of tokens of {in_steps(span(rows))} have no gradient because the policy has moved "
        f"further than the clip range ({number(bound)}) from the one that drew them.",
        history.facts.advice(
            "Lower `optimizer.learning_rate`, `method.minibatches` or `method.updates_per_rollout`, which decide how "
            "far a step moves.",
            "Lower `rollout.lag`." if lag else "",
            "Or widen the range: `method.eps_low` and `method.eps_high`.",
            "Or widen the range: `method.clip`." if history.facts.get("method.clip") is not None else "",
        ),
        span(rows),
        ("clip_fraction", "ratio/p99.9"),
    )
