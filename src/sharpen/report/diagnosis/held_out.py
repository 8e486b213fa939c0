"""Illnesses that the held-out measures show: the run does not get better, or gets worse.

Two measurements differ only where their 95 % intervals have nothing in common. As both are of the same prompts, that is
rarer by chance than of independent ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from sharpen.report.diagnosis.comparing import risen
from sharpen.report.diagnosis.finding import Finding
from sharpen.report.diagnosis.history import HELD_OUT, History, Measured, Row, in_steps, number, share, span, values

COMPARED = 5
"""Training steps about a measurement whose reward or loss is compared."""
UNMOVED_STEPS = 50
UNMOVED_MEASUREMENTS = 4
SATURATED = 0.98
CHANCE_STEPS = 30
PAIRS = 200
CHANCE = 0.55


@dataclass(frozen=True, slots=True)
class Fall:
    """A held-out measure now, at the start of the run and at its best; and the training reward then and now."""

    measure: str
    start: Measured
    best: Measured
    now: Measured
    before: Sequence[Row]
    after: Sequence[Row]

    @property
    def fell(self) -> bool:
        return self.now.worse_than(self.best)

    @property
    def reward_rose(self) -> bool:
        return risen(values(self.before, "reward/mean"), values(self.after, "reward/mean"))

    @property
    def key(self) -> str:
        return f"{HELD_OUT}{self.measure}"


def reward_rises_held_out_falls(history: History) -> Finding | None:
    """The training reward goes on rising while the held-out measure falls."""
    fall = _of_main(history)
    if fall is None or fall.measure == "loss" or not fall.fell or not fall.reward_rose:
        return None
    return Finding(
        "reward_rises_held_out_falls",
        "problem",
        "The reward rises while held-out falls",
        f"Held-out {fall.measure} was {fall.best} and is {fall.now} (95 % intervals); the training reward rose from "
        f"{number(fmean(values(fall.before, 'reward/mean')))} in {in_steps(span(fall.before))} to "
        f"{number(fmean(values(fall.after, 'reward/mean')))} in {in_steps(span(fall.after))}.",
        history.facts.advice(
            "Is it reward hacking? Read the samples with the highest reward; `sharpen reward check` tries known "
            "cheats on the reward.",
            f"The model of step {fall.best.step} was better: keep such a one with `checkpoint.best`.",
            "A higher `method.beta` keeps the policy near the reference.",
            "If the same few prompts come again and again, train on more of them.",
        ),
        (fall.best.step, fall.now.step),
        (fall.key, "reward/mean"),
    )


def part_falls_while_reward_rises(history: History) -> Finding | None:
    """One of several rewards falls on held-out prompts while the training reward rises."""
    if not history.rows:
        return None
    prefix = f"{HELD_OUT}reward/"
    names = {key.removesuffix("_low") for row in history.rows[-1:] for key in row if key.startswith(prefix)}
    names |= {f"{prefix}{name.removeprefix('reward/')}" for name in history.trained[-1] if name.startswith("reward/")}
    # Of a penalty, less is better.
    if any(weight < 0 for weight in history.facts.weights or ()):
        names = {name for name in names if history.part_weights.get(name.removeprefix(prefix), -1.0) > 0}
    falls = (_of(history, name.removeprefix(HELD_OUT)) for name in sorted(names))
    found = [fall for fall in falls if fall is not None and fall.fell and fall.reward_rose]
    main = _of_main(history)
    if not found or (main is not None and main.fell):
        return None
    fall = found[0]
    return Finding(
        "part_falls_while_reward_rises",
        "warning",
        f"The reward rises at the cost of {fall.measure.removeprefix('reward/')}",
        f"Held-out {fall.measure} was {fall.best} and is {fall.now} (95 % intervals), while the training reward rose "
        f"from {number(fmean(values(fall.before, 'reward/mean')))} to "
        f"{number(fmean(values(fall.after, 'reward/mean')))}.",
        history.facts.advice("If it matters, give it a weight in the list of `reward`s, or a larger one."),
        (fall.best.step, fall.now.step),
        (fall.key, "reward/mean"),
    )


def held_out_below_start(history: History) -> Finding | None:
    """The model is worse on held-out rows than before training."""
    fall = _of_main(history)
    if fall is None or not fall.now.worse_than(fall.start) or reward_rises_held_out_falls(history) is not None:
        return None
    return Finding(
        "held_out_below_start",
        "problem",
        "The model is worse than before training",
        f"Held-out {fall.measure} was {fall.start} and is {fall.now} (95 % intervals).",
        history.facts.advice(
            "Lower `optimizer.learning_rate`; a rate ten times as small is worth a try.",
            "A higher `method.beta` keeps the policy near the reference.",
        ),
        (fall.start.step, fall.now.step),
        (fall.key,),
    )


def held_out_past_its_best(history: History) -> Finding | None:
    """The held-out measure has been better than now, and no other finding says so."""
    fall = _of_main(history)
    if fall is None or not fall.fell or fall.now.worse_than(fall.start) or fall.reward_rose or overfitting(history):
        return None
    kept = history.facts.get("checkpoint.best") is not None
    return Finding(
        "held_out_past_its_best",
        "warning",
        "Held-out is past its best",
        f"Held-out {fall.measure} was {fall.best} and is {fall.now} (95 % intervals).",
        history.facts.advice(
            "Use the checkpoint of the best step, which `checkpoint.best` keeps."
            if kept
            else "Have `checkpoint.best` keep the best checkpoint, and train for fewer steps.",
            "Lower `optimizer.learning_rate`, or let it decay with `optimizer.schedule`.",
        ),
        (fall.best.step, fall.now.step),
        (fall.key,),
    )


def held_out_not_improved(history: History) -> Finding | None:
    """After many steps and measurements the held-out measure is no better than it was."""
    fall = _of_main(history)
    if fall is None or fall.fell or fall.now.step - fall.start.step < UNMOVED_STEPS:
        return None
    points = history.held_out(fall.measure)
    # Half of the distance from the mean to the end of its interval.
    gain = (fall.start.high - fall.start.low) / 4
    better = any(point.sign * (point.mean - fall.start.mean) > gain for point in points[-3:])
    saturated = fall.now.sign > 0 and fall.start.mean >= SATURATED
    if better or saturated or len(points) <= UNMOVED_MEASUREMENTS or pairs_at_chance(history) is not None:
        return None
    rose, never = fall.reward_rose, fall.now.sign > 0 and fall.start.mean == fall.now.mean == 0
    return Finding(
        "held_out_not_improved",
        "warning" if rose else "note",
        "Held-out has not improved",
        f"Held-out {fall.measure} was {fall.start}, and {len(points) - 1} measurements later is {fall.now}"
        f"{', though the training reward rose' if rose else ''}.",
        history.facts.advice(
            "Read some held-out completions: is a right answer there, in a form that the reward finds?"
            if never
            else "What is learned on the training prompts does not carry over: train on more of them."
            if rose
            else "A higher `optimizer.learning_rate` moves it sooner; three times as high is worth a try.",
            "If its interval is wider than what you hope to gain, measure on more `evaluation.prompts`.",
        ),
        (fall.start.step, fall.now.step),
        (fall.key,),
    )


def overfitting(history: History) -> Finding | None:
    """The held-out loss rises while the training loss falls."""
    if history.draws:
        return None
    fall = _of(history, "loss")
    if fall is None or not fall.fell:
        return None
    before, after = values(fall.before, "loss"), values(fall.after, "loss")
    if min(len(before), len(after)) < 3 or fmean(after) >= fmean(before):
        return None
    return Finding(
        "overfitting",
        "warning",
        "The model overfits",
        f"Held-out loss was {fall.best} and is {fall.now} (95 % intervals), while the training loss fell from "
        f"{number(fmean(before))} in {in_steps(span(fall.before))} to {number(fmean(after))} in "
        f"{in_steps(span(fall.after))}.",
        history.facts.advice(
            f"Stop near step {fall.best.step}: lower `training.steps`, or keep the best checkpoint with "
            "`checkpoint.best` loss.",
            "Train on more data, or with a higher `optimizer.weight_decay`.",
        ),
        (fall.best.step, fall.now.step),
        ("held_out/loss", "loss"),
    )


def pairs_at_chance(history: History) -> Finding | None:
    """The model tells the better completion from the worse no more often than a coin."""
    rows = [row for row in history.trained if "pair_accuracy" in row]
    prompts = history.facts.integer("training.prompts_per_step") or 0
    if len(rows) < CHANCE_STEPS:
        return None
    last = rows[-max(CHANCE_STEPS // 2, -(-PAIRS // max(prompts, 1))) :]
    accuracy = fmean(values(last, "pair_accuracy"))
    measured = history.held_out("pair_accuracy")
    if len(last) * prompts < PAIRS or accuracy > CHANCE or (measured and measured[-1].low > 0.5):
        return None
    held_out = f"; held-out it is {measured[-1]}" if measured else ""
    return Finding(
        "pairs_at_chance",
        "problem",
        "Pair accuracy is at chance",
        f"The better completion has the higher score in {share(accuracy)} of the pairs of {in_steps(span(last))}"
        f"{held_out}. A coin gets 50 %.",
        history.facts.advice(
            "Look at some pairs: are the better ones really better, and in the right column?",
            "A higher `optimizer.learning_rate` or more `training.steps` may be needed.",
        ),
        span(last),
        ("pair_accuracy", "held_out/pair_accuracy"),
    )


def _of_main(history: History) -> Fall | None:
    return None if history.measure is None else _of(history, history.measure)


def _of(history: History, measure: str) -> Fall | None:
    """None if it was measured less than twice, or is not measured any more."""
    points = history.held_out(measure)
    if len(points) < 2 or not history.trained:
        return None
    best = max(points[:-1], key=lambda point: point.sign * point.mean)
    before, after = history.around(best.step, COMPARED), history.trained[-COMPARED:]
    return Fall(measure, points[0], best, points[-1], before, after)
