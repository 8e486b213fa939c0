"""Illnesses of the reward itself: it fails, it takes too long, it falls."""

from __future__ import annotations

from statistics import fmean

from sharpen.report.diagnosis.comparing import ERRORS, change
from sharpen.report.diagnosis.finding import Finding
from sharpen.report.diagnosis.history import History, in_steps, number, share, span, values
from sharpen.report.diagnosis.samples import commonest

STEPS = 3
FAILING = 0.01
"""Share of failed rewards from which on it is said: one in a hundred is no accident."""
LATE = 0.05
REFUSED = 0.5
FALL_STEPS = 10
FALL = 0.5
"""By how much of the spread within a step the mean reward has to fall from its best."""


def rewards_fail(history: History) -> Finding | None:
    """The reward raises or takes too long for some completions, which are then not trained on."""
    rows = history.last(STEPS)
    failed = values(rows, "reward/failed")
    if not failed or fmean(failed) < FAILING:
        return None
    environment = fmean(values(rows, "environment/failed") or [0.0])
    if environment >= fmean(failed):  # they count as failed rewards too
        return None
    allowed = history.facts.number("rollout.max_reward_failures")
    errors, late = history.window.errors, fmean(values(rows, "reward/timed_out") or [0.0])
    near = allowed is not None and max(failed) > allowed / 2
    in_time = f" ({share(late)} took too long)" if late else ""
    most_often = f", most often with: {commonest(errors)}" if errors else ""
    stops = f", and above {share(allowed)} of a step the run stops" if allowed is not None and allowed < 1 else ""
    return Finding(
        "rewards_fail",
        "problem" if near else "warning",
        "Rewards fail",
        f"{share(fmean(failed))} of completions of {in_steps(span(rows))} have no reward because computing it "
        f"failed{in_time}{most_often}. They are not trained on{stops}.",
        history.facts.advice(
            "Mend the reward: `sharpen reward check` calls it on rows of the data.",
            "Give it more time with `call: {timeout_s: …}` of its entry." if late else "",
            "`rollout.max_reward_failures` is the share that the run bears.",
        ),
        span(rows),
        ("reward/failed", "reward/timed_out"),
    )


def rewards_time_out(history: History) -> Finding | None:
    """Judging some completions takes too long by their own doing, which is a reward of 0."""
    rows = history.last(STEPS)
    late, failed = values(rows, "reward/timed_out"), values(rows, "reward/failed")
    if not late or not failed or fmean(late) - fmean(failed) < LATE:
        return None
    return Finding(
        "rewards_time_out",
        "warning",
        "Completions take too long to judge",
        f"{share(fmean(late) - fmean(failed))} of completions of {in_steps(span(rows))} got 0 because judging them "
        "took longer than allowed.",
        history.facts.advice(
            "Read the column refused of some samples: if right answers are among them, raise the timeout_s of the "
            "reward's entry."
        ),
        span(rows),
        ("reward/timed_out",),
    )


def completions_refused(history: History) -> Finding | None:
    """Most completions of recent steps could not be judged, by their own doing."""
    window = history.window
    if len(window.steps) < STEPS or not window.refused or len(window.refused) / len(window) < REFUSED:
        return None
    return Finding(
        "completions_refused",
        "warning",
        "Most completions cannot be judged",
        f"{share(len(window.refused) / len(window))} of the {len(window):,} completions of "
        f"{in_steps((window.steps[0], window.steps[-1]))} got 0 because the reward could not judge them, most often: "
        f"{commonest(window.refused)}.",
        history.facts.advice("Say in the prompt or in `data.system` which form an answer has."),
        (window.steps[0], window.steps[-1]),
        ("reward/mean",),
        "samples",
    )


def environment_fails(history: History) -> Finding | None:
    """What answers the model between its turns fails."""
    rows = history.last(STEPS)
    failed = values(rows, "environment/failed")
    if not failed or fmean(failed) < FAILING:
        return None
    allowed, errors = history.facts.number("rollout.max_reward_failures"), history.window.errors
    near = allowed is not None and max(failed) > allowed / 2
    return Finding(
        "environment_fails",
        "problem" if near else "warning",
        "The environment fails",
        f"{share(fmean(failed))} of trajectories of {in_steps(span(rows))} ended because rollout.turns failed or took "
        f"too long{f', most often with: {commonest(errors)}' if errors else ''}. They are not trained on.",
        history.facts.advice(
            "Mend the function of `rollout.turns`, or give it more time with `rollout.turn_timeout_s`."
        ),
        span(rows),
        ("environment/failed", "reward/failed"),
    )


def reward_fell(history: History) -> Finding | None:
    """The training reward is far below what it has been."""
    rows = [row for row in history.trained if "reward/mean" in row]
    if len(rows) < 3 * FALL_STEPS:
        return None
    now = rows[-FALL_STEPS:]
    stretches = [rows[at : at + FALL_STEPS] for at in range(0, len(rows) - 2 * FALL_STEPS + 1, FALL_STEPS)]
    best = max(stretches, key=lambda stretch: fmean(values(stretch, "reward/mean")))
    difference, error = change(values(best, "reward/mean"), values(now, "reward/mean"))
    within = fmean(values(best, "reward/std"))
    if difference > -max(FALL * within, (ERRORS + 1) * error, 1e-9):
        return None
    return Finding(
        "reward_fell",
        "problem",
        "The reward has fallen",
        f"Its mean was {number(fmean(values(best, 'reward/mean')))} in {in_steps(span(best))} and is "
        f"{number(fmean(values(now, 'reward/mean')))} in {in_steps(span(now))}.",
        history.facts.advice(
            f"Start again from a checkpoint before step {span(now)[0]} with a lower `optimizer.learning_rate`.",
            "Keep the policy nearer to where it began with `method.beta`.",
            "A longer `optimizer.warmup_steps` and fewer `method.minibatches` make the updates gentler.",
        ),
        (span(best)[0], span(now)[1]),
        ("reward/mean", "grad_norm", "entropy"),
    )
