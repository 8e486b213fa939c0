"""Hand-made groups of trajectories of one to three samples."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from oracles import trajectories as oracle
from sharpen.types import NOT_DRAWN, End, Finish, Group, Prompt, Sample, Score, StepValue, Trajectory

# Each sample is a prefix and its tokens: o is drawn, x is a tool's, capitals end a step. No prefix extends another.
# A reward of None is one that failed.
PREFIXES = {"p": 5, "p2": 6, "p3": 3, "q": 1, "q2": 4, "q3": 2, "r": 7, "r2": 3}
SCRIPT: tuple[tuple[tuple[tuple[str, ...], float | None, End], ...], ...] = (
    (
        (("r oO", "r2 oo"), 0.5, End.DONE),
        (("r oO", "r2 oo"), 0.5, End.DONE),
        (("r ooO",), 0.5, End.DONE),
        (("r ooo", "r2 oxx"), 0.5, End.OUT_OF_TOKENS),
    ),
    (
        (("p ooO",), 1.0, End.DONE),
        (("p oOxxxoO",), 0.0, End.DONE),
        (("p ooO", "p2 oOx"), 0.5, End.DONE),
        (("p oO", "p3 xx", "p2 oxoO"), 1.0, End.DONE),
    ),
    (
        (("q oxXoO", "q2 oOoo"), 0.5, End.OUT_OF_TOKENS),
        (("q oO", "q2 oO"), None, End.DONE),
        (("q oo", "q3 O", "q2 xx"), 0.0, End.OUT_OF_TURNS),
        (("q O",), 1.0, End.DONE),
    ),
)


def trajectories_of(vocabulary: int) -> list[list[Trajectory]]:
    """The script's, without scores; the log-probabilities with which the tokens were drawn are 0."""
    generator = random.Random(3)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(generator.randrange(2, vocabulary) for _ in range(count))

    prefixes = {name: tokens(length) for name, length in PREFIXES.items()}
    written: dict[str, tuple[int, ...]] = {}
    groups, number = [], 0
    for group in SCRIPT:
        made = []
        for samples, _, end in group:
            parts = []
            for text in samples:
                name, marks = text.split()
                own = tuple(mark in "oO" for mark in marks)
                # The same text is the same tokens: the first group has two trajectories alike.
                ids = written.setdefault(text, tokens(len(marks)))
                versions = tuple(0 if drawn else NOT_DRAWN for drawn in own)
                parts.append(Sample(prefixes[name], ids, own, Finish.EOS, (0.0,) * len(own), versions))
            made.append(Trajectory(tuple(parts), end=end, draw_id=number))
            number += 1
        groups.append(made)
    return groups


def step_values(samples: Sequence[str], *, own_only: bool, generator: random.Random) -> tuple[StepValue, ...]:
    ends = "O" if own_only else "OX"
    return tuple(
        StepValue(position, generator.choice((0.0, 0.5, 1.0)), sample)
        for sample, text in enumerate(samples)
        for position, mark in enumerate(text.split()[1])
        if mark in ends
    )


def drawn_groups(
    trajectories: Sequence[Sequence[Trajectory]],
    logprobs: Sequence[Sequence[float]],
    noise: float,
    versions: Mapping[int, int] | None = None,
) -> list[Group]:
    """Groups drawn with log-probabilities ``noise`` away from ``logprobs``, those of the drawn tokens.

    ``versions`` are the versions that drew the samples, by their number in the trajectory; 0 for all others.
    """
    generator = random.Random(7)
    every = [t for group in trajectories for t in group]
    made = []
    for trajectory, row in zip(every, logprobs, strict=True):
        found = dict(zip(oracle.drawn(trajectory), row, strict=True))
        samples = tuple(
            replace(
                sample,
                logprobs=tuple(
                    found[b, n] + generator.gauss(0, noise) if (b, n) in found else 0.0
                    for n in range(len(sample.token_ids))
                ),
                versions=tuple((versions or {}).get(b, 0) if own else NOT_DRAWN for own in sample.loss_mask),
            )
            for b, sample in enumerate(trajectory.samples)
        )
        made.append(replace(trajectory, samples=samples))
    groups, rows = [], iter(made)
    for name, group in enumerate(SCRIPT):
        scored = []
        for samples_of, total, _ in group:
            steps = step_values(samples_of, own_only=False, generator=generator)
            scored.append(replace(next(rows), score=Score(total, steps=() if total is None else steps)))
        groups.append(Group(Prompt(str(name), (), "", {}), tuple(scored)))
    return groups


def data_groups(trajectories: Sequence[Sequence[Trajectory]], *, scored: bool) -> list[Group]:
    """The same as data: demonstrations, or rankings and marked steps. A last sample that nobody wrote is left out."""
    generator = random.Random(8)
    groups = []
    for name, (group, made) in enumerate(zip(SCRIPT, trajectories, strict=True)):
        rows = []
        for (samples_of, total, _), trajectory in zip(group, made, strict=True):
            samples = tuple(replace(sample, logprobs=(), versions=()) for sample in trajectory.samples)
            steps = step_values(samples_of, own_only=True, generator=generator)
            score = Score(total, steps=() if total is None else steps) if scored else None
            kept = samples if any(samples[-1].loss_mask) else samples[:-1]
            rows.append(Trajectory(kept, score=score))
        groups.append(Group(Prompt(str(name), (), "", {}), tuple(rows)))
    return groups
