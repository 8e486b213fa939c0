"""Illnesses of the signal: rewards in which there is nothing to learn from."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import takewhile
from statistics import fmean

from sharpen.report.diagnosis.finding import Finding
from sharpen.report.diagnosis.history import History, Row, in_steps, number, share, span, values
from sharpen.report.diagnosis.samples import commonest

FLAT_STEPS = 5
"""So many steps without spread are said: each is a whole rollout from which nothing was learned."""
SPARSE_STEPS = 10
SPARSE = 0.9
"""Share of groups without spread from which on little is learned."""
SOLVED = 0.9
"""Share of the highest reward from which on groups without spread are prompts that the policy has learned."""
CUT_OFF, REFUSED = 0.8, 0.5
"""Shares of completions that explain why all rewards are 0."""
EXPECTED = 10
"""So many completions would have been right at the earlier rate, if the policy still had it."""

REWARD = ("reward/mean", "reward/std", "groups/zero_spread")


def no_rewards(history: History) -> Finding | None:
    """No completion of the last steps has a reward at all."""
    rows = _ending(history, lambda row: "reward/mean" not in row)
    if rows is None:
        return None
    failed = fmean(values(rows, "reward/failed") or [0.0])
    why = f"{share(failed)} of them failed" if failed else "none of them failed: the reward applies to none (None)"
    errors = history.window.errors
    return Finding(
        "no_rewards",
        "problem",
        "No completion has a reward",
        f"Of the {_completions(history, rows)}completions of {in_steps(span(rows))} none was scored: {why}"
        f"{f', most often with: {commonest(errors)}' if errors else ''}.",
        history.facts.advice("Try the reward on some rows with `sharpen reward check`."),
        span(rows),
        ("reward/failed",),
    )


def all_rewards_zero(history: History) -> Finding | None:
    """Every reward of the last steps is the same, and not above 0."""
    rows = _all_equal(history)
    if rows is None or rows[-1]["reward/mean"] > 0:
        return None
    cause, advice = _why_zero(history, rows)
    return Finding(
        "all_rewards_zero",
        "problem",
        f"Every reward is {number(rows[-1]['reward/mean'])}",
        f"So it was for all {_completions(history, rows)}completions of {in_steps(span(rows))}, and nothing is "
        f"learned from equal rewards. {cause}",
        advice,
        span(rows),
        (*REWARD, "truncated"),
    )


def _why_zero(history: History, rows: list[Row]) -> tuple[str, str]:
    """The likely cause of rewards that are all 0, and what to do about it."""
    facts, refused = history.facts, history.window.refused
    refusals = len(refused) / len(history.window) if len(history.window) else 0.0
    cut_off = fmean(values(rows, "truncated") or [0.0])
    earlier = values([row for row in history.trained if row["step"] < rows[0]["step"]], "reward/mean")
    if earlier and _expected(history, rows, fmean(earlier)) >= EXPECTED:
        return (
            f"In the steps before, the mean was {number(fmean(earlier))}: the policy has lost what it could do "
            f"({share(cut_off)} of completions reach max_new_tokens now).",
            facts.advice(
                f"Start again from a checkpoint before step {span(rows)[0]}, or from the beginning, with a lower "
                "`optimizer.learning_rate`.",
                "A higher `method.beta` keeps the policy near the reference.",
            ),
        )
    if cut_off >= CUT_OFF:
        return (
            f"{share(cut_off)} of completions reached max_new_tokens ({facts.get('rollout.max_new_tokens')}): they "
            "were cut off unfinished.",
            facts.advice(
                "Raise `rollout.max_new_tokens`, or have the model answer more briefly: with a prompt or "
                "`data.system` that asks for it, or by training on demonstrations first (method sft)."
            ),
        )
    if refusals >= REFUSED:
        return (
            f"{share(refusals)} of completions could not be judged, by their own doing; most often: "
            f"{commonest(refused)}.",
            facts.advice("Say in the prompt or in `data.system` which form an answer has."),
        )
    length = fmean(values(rows, "length/mean") or [0.0])
    return (
        f"{share(cut_off)} of completions reached max_new_tokens; the others end by themselves (all are "
        f"{number(length)} tokens long on average), and are wrong or have a form in which the reward finds no answer.",
        facts.advice(
            "Read some samples. If right answers are there, the form is at fault: try the reward with `sharpen reward "
            "check`, and say in the prompt or in `data.system` which form an answer has.",
            "If there are none, the prompts are too hard: train on demonstrations first (method sft), take easier "
            "prompts, or draw more completions with `method.group_size`.",
        ),
    )


def all_rewards_highest(history: History) -> Finding | None:
    """Every reward of the last steps is the highest that there is."""
    rows = _all_equal(history)
    if rows is None or not _is_highest(history, rows[-1]["reward/mean"]):
        return None
    from_the_start = rows[0] is history.trained[0]
    return Finding(
        "all_rewards_highest",
        "warning" if from_the_start else "note",
        "Every reward is at its maximum" if from_the_start else "All prompts are solved",
        f"All {_completions(history, rows)}completions of {in_steps(span(rows))} got {number(rows[-1]['reward/mean'])}"
        f"{', from the first step on' if from_the_start else ''}: there is nothing left to learn from them.",
        history.facts.advice(
            "Take harder prompts, or a reward that tells these completions apart."
            if from_the_start
            else "Stop here, or go on with harder prompts."
        ),
        span(rows),
        REWARD,
    )


def all_rewards_equal(history: History) -> Finding | None:
    """Every reward of the last steps is the same, and neither the lowest nor the highest."""
    rows = _all_equal(history)
    if rows is None or rows[-1]["reward/mean"] <= 0 or _is_highest(history, rows[-1]["reward/mean"]):
        return None
    return Finding(
        "all_rewards_equal",
        "problem",
        "All rewards are equal",
        f"All {_completions(history, rows)}completions of {in_steps(span(rows))} got "
        f"{number(rows[-1]['reward/mean'])}: nothing is learned from equal rewards.",
        history.facts.advice(
            "See with `sharpen reward check` whether the reward tells a right completion from a wrong one.",
            "If all completions of a prompt are the same text, the policy no longer explores: start from an earlier "
            "checkpoint with a lower `optimizer.learning_rate`.",
        ),
        span(rows),
        REWARD,
    )


def no_group_has_spread(history: History) -> Finding | None:
    """Rewards differ between prompts, and in the last steps never within one."""
    rows = _ending(history, lambda row: row.get("groups/zero_spread") == 1.0)
    if rows is None or not history.facts.relative_to_group or _all_equal(history) is not None:
        return None
    mean = fmean(values(rows, "reward/mean"))
    return Finding(
        "no_group_has_spread",
        "problem",
        "No group has a spread of rewards",
        f"In {in_steps(span(rows))} all completions of each prompt got the same reward (the mean over prompts is "
        f"{number(mean)}), so every advantage is 0 and nothing is learned.",
        history.facts.advice(
            "Draw more completions per prompt with `method.group_size`.",
            "Take prompts that the policy solves sometimes: neither always nor never.",
            "If the completions of a prompt are all the same text, raise `rollout.temperature` towards 1.",
        ),
        span(rows),
        ("groups/zero_spread", "reward/mean"),
    )


def few_groups_have_spread(history: History) -> Finding | None:
    """Nearly all prompts have completions of equal reward, and they are not solved."""
    rows = history.last(SPARSE_STEPS)
    flat, rewards = values(rows, "groups/zero_spread"), values(rows, "reward/mean")
    if not history.facts.relative_to_group or min(len(flat), len(rewards)) < SPARSE_STEPS:
        return None
    mean, highest = fmean(rewards), history.facts.highest_reward
    # Said in other words where all are flat.
    if fmean(flat) < SPARSE or min(flat[-FLAT_STEPS:]) == 1.0 or mean >= SOLVED * highest:
        return None
    hard = mean < highest / 2
    return Finding(
        "few_groups_have_spread",
        "warning",
        f"Most prompts are too {'hard' if hard else 'easy or too hard'} to learn from",
        f"In {in_steps(span(rows))}, {share(fmean(flat))} of prompts had completions of equal reward, from which "
        f"nothing is learned; the mean reward is {number(mean)}.",
        history.facts.advice(
            "Draw more completions per prompt with `method.group_size`, or take "
            f"{'easier' if hard else 'other'} prompts.",
            "`method.dynamic_sampling` samples on until enough groups have spread."
            if not history.facts.get("method.dynamic_sampling")
            else "`method.max_rounds` bounds how long dynamic sampling looks for others.",
        ),
        span(rows),
        ("groups/zero_spread", "reward/mean"),
    )


def nothing_applied(history: History) -> Finding | None:
    """No update of the last steps had a gradient, and equal rewards do not explain it."""
    rows = _ending(history, lambda row: row.get("updates/applied") == 0 and row.get("updates/skipped", 0) > 0)
    if rows is None or (history.draws and any(find(history) for find in EXPLAIN_NO_UPDATE)):
        return None
    threshold = history.facts.number("method.threshold")
    means = values(rows, "reward/mean")
    why = (
        f"no completion reached method.threshold ({number(threshold)}); the mean reward is {number(fmean(means))}"
        if threshold is not None and means
        else "every advantage was 0, or every completion was left out of the loss"
    )
    return Finding(
        "nothing_applied",
        "problem",
        "No update is applied",
        f"In {in_steps(span(rows))} no optimizer step had a gradient: {why}.",
        history.facts.advice(
            "Lower `method.threshold`, or draw more completions with `method.group_size`.",
            *(["Truncated completions are left out by `method.mask_truncated`."] if _masks(history) else []),
            *([] if threshold is not None else ["Look at advantage/abs and at the rewards of some samples."]),
        ),
        span(rows),
        ("updates/applied", "updates/skipped", "advantage/abs"),
    )


EXPLAIN_NO_UPDATE = (no_rewards, all_rewards_zero, all_rewards_highest, all_rewards_equal, no_group_has_spread)


def _masks(history: History) -> bool:
    return bool(history.facts.get("method.mask_truncated"))


def _is_highest(history: History, value: float) -> bool:
    return abs(value - history.facts.highest_reward) <= 1e-6 * abs(value)


def _ending(history: History, holds: Callable[[Row], bool]) -> list[Row] | None:
    """The last steps for which it holds, if they are enough."""
    rows = [*takewhile(holds, reversed(history.trained))][::-1]
    return rows if len(rows) >= FLAT_STEPS else None


def _all_equal(history: History) -> list[Row] | None:
    """The last steps in which all completions of all steps got one reward, if they are enough."""
    if not history.trained or "reward/mean" not in history.trained[-1]:
        return None
    value = history.trained[-1]["reward/mean"]
    rounding = 1e-6 * max(1.0, abs(value))

    def same(row: Row) -> bool:
        return abs(row.get("reward/mean", math.inf) - value) <= rounding and row.get("reward/std", math.inf) <= rounding

    return _ending(history, same)


def _expected(history: History, rows: list[Row], earlier: float) -> float:
    """How many of the completions of these steps would have had the highest reward, the others 0, at that mean."""
    return earlier / history.facts.highest_reward * (history.facts.completions_per_step or 1) * len(rows)


def _completions(history: History, rows: list[Row]) -> str:
    """How many completions these steps drew, for a sentence; empty if the recipe does not say."""
    per_step = history.facts.completions_per_step
    if per_step is None or history.facts.get("method.dynamic_sampling"):
        return ""
    return f"{per_step * len(rows):,} "
