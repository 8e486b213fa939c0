"""Illnesses of length: completions that are cut off, or that grow for nothing."""

from __future__ import annotations

import math
from statistics import fmean

import numpy as np

from sharpen.report.diagnosis.comparing import risen
from sharpen.report.diagnosis.finding import Finding
from sharpen.report.diagnosis.history import History, in_steps, number, share, span, values
from sharpen.report.diagnosis.spread import all_rewards_zero

STEPS = 10
CUT_OFF, MOSTLY_CUT_OFF = 0.3, 0.5
OUT_OF_TURNS = 0.5
GROWN = 1.5
CORRELATED = 0.8
"""Correlation of reward and length within groups. Where longer answers are right more often, 0.3 is usual."""
TRAJECTORIES, GROUPS = 200, 20


def truncation_high(history: History) -> Finding | None:
    """Many completions are cut off by the token limit; not said where rewards of 0 say more."""
    rows = history.last(STEPS)
    found = values(rows, "truncated")
    if len(found) < STEPS or fmean(found) < CUT_OFF or all_rewards_zero(history) is not None:
        return None
    limit = history.facts.get("rollout.max_new_tokens")
    return Finding(
        "truncation_high",
        "problem" if fmean(found) >= MOSTLY_CUT_OFF else "warning",
        "Many completions are cut off",
        f"{share(fmean(found))} of completions of {in_steps(span(rows))} reached max_new_tokens ({limit}); a "
        "completion without its end is rarely right.",
        history.facts.advice(
            "Raise `rollout.max_new_tokens`, or have the model answer more briefly.",
            "`method.overlong_share` punishes completions that come near the limit."
            if not history.facts.get("method.overlong_share")
            else "",
            "`method.mask_truncated` leaves them out of the loss."
            if not history.facts.get("method.mask_truncated")
            else "",
        ),
        span(rows),
        ("truncated", "length/mean"),
    )


def out_of_turns(history: History) -> Finding | None:
    """Most conversations reach the limit of turns."""
    rows = history.last(STEPS)
    found = values(rows, "turns/out_of_turns")
    if len(found) < STEPS or fmean(found) < OUT_OF_TURNS:
        return None
    return Finding(
        "out_of_turns",
        "warning",
        "Most conversations run out of turns",
        f"{share(fmean(found))} of trajectories of {in_steps(span(rows))} reached max_turns "
        f"({history.facts.get('rollout.max_turns')}).",
        history.facts.advice(
            "Raise `rollout.max_turns`, or have the function of `rollout.turns` end conversations that are done."
        ),
        span(rows),
        ("turns/out_of_turns", "turns/mean"),
    )


def length_grows_without_gain(history: History) -> Finding | None:
    """Completions are much longer than when the reward was first as high as now."""
    rows = [row for row in history.trained if "reward/mean" in row and "length/mean" in row]
    if len(rows) < 3 * STEPS:
        return None
    now = rows[-STEPS:]
    rewards, length = values(now, "reward/mean"), fmean(values(now, "length/mean"))
    stretches = [rows[at : at + STEPS] for at in range(0, len(rows) - 2 * STEPS + 1, STEPS)]
    as_good = (stretch for stretch in stretches if not risen(values(stretch, "reward/mean"), rewards))
    then = next(as_good, None)
    if then is None or length < GROWN * fmean(values(then, "length/mean")):
        return None
    return Finding(
        "length_grows_without_gain",
        "warning",
        "Completions grow longer without gain",
        f"They are {number(length)} tokens long on average in {in_steps(span(now))} and were "
        f"{number(fmean(values(then, 'length/mean')))} in {in_steps(span(then))}; the reward was "
        f"{number(fmean(values(then, 'reward/mean')))} then and is {number(fmean(rewards))} now.",
        history.facts.advice(
            "`method.reduction` per_sequence favours long wrong answers: constant does not."
            if history.facts.get("method.reduction") == "per_sequence"
            else "",
            "`method.overlong_share` punishes completions that come near `rollout.max_new_tokens`."
            if not history.facts.get("method.overlong_share")
            else "",
            "See in some samples whether the reward counts what only takes room.",
        ),
        (span(then)[0], span(now)[1]),
        ("length/mean", "reward/mean"),
    )


def length_decides_reward(history: History) -> Finding | None:
    """Within groups, the reward follows the length of the completion."""
    window = history.window
    if len(window) < TRAJECTORIES or window.groups_with_spread < GROUPS:
        return None
    rewards, lengths = window.deviations, window.deviation(window.tokens)
    # Over the groups whose rewards differ: in the others there is nothing to follow.
    spread = np.bincount(window.groups, np.abs(rewards)) > 1e-9
    lengths = np.where(spread[window.groups], lengths, 0.0)
    size = math.sqrt(float(rewards @ rewards) * float(lengths @ lengths))
    correlation = float(rewards @ lengths) / size if size > 0 else 0.0
    if abs(correlation) < CORRELATED:
        return None
    steps = (window.steps[0], window.steps[-1])
    cut_off = float(window.cut_off.mean())
    return Finding(
        "length_decides_reward",
        "warning",
        f"The reward follows the length: {'longer' if correlation > 0 else 'shorter'} is better",
        f"Within the groups of {in_steps(steps)} the correlation of reward and length is {correlation:.2f} "
        f"({window.groups_with_spread} groups whose rewards differ; {share(cut_off)} of completions were cut off).",
        history.facts.advice(
            "If that is not what the reward is for, see in some samples what it counts.",
            "If cut-off completions lose their answer, raise `rollout.max_new_tokens`." if cut_off >= 0.1 else "",
        ),
        steps,
        ("reward/mean", "length/mean"),
        "samples",
    )
