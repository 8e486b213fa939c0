"""Healthy runs, of which nothing is said at any step, and long ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.random import Generator

from histories import IMITATING, USUAL, Column, facts, found, group, measured, steps
from sharpen.report.diagnosis.facts import Facts
from sharpen.report.diagnosis.history import History, Row
from sharpen.report.diagnosis.samples import StepSamples
from sharpen.report.diagnosis.watch import FIRST, LAST, Watch
from sharpen.types import Group

STEPS = 120


def learned(first: float, last: float, count: int = STEPS) -> list[float]:
    """As a learning curve goes: fast at first."""
    return [last + (first - last) * math.exp(-4 * at / count) for at in range(count)]


def noisy(values: Sequence[float], share: float, random: Generator) -> list[float]:
    return [value * (1 + share * z) for value, z in zip(values, random.standard_normal(len(values)), strict=True)]


def grpo(random: Generator) -> tuple[list[Row], list[StepSamples]]:
    """A model that answers half of the problems and learns nearly all: its entropy falls to a tenth, its answers grow
    by half as it shows its work, and in the end most prompts have no spread."""
    right = learned(0.5, 0.97)
    rewards = [float(random.binomial(512, p) / 512) for p in right]
    columns: dict[str, Column] = {
        "reward__mean": rewards,
        "reward__std": [math.sqrt(r * (1 - r)) for r in rewards],
        "groups__zero_spread": noisy(learned(0.0, 0.7), 0.1, random),
        "entropy": noisy(learned(0.15, 0.016), 0.05, random),
        "grad_norm": noisy(learned(1.9, 0.18), 0.3, random),
        "clip_fraction": noisy(learned(0.004, 0.0), 0.5, random),
        "length__mean": noisy(learned(16.0, 23.5), 0.02, random),
        "kl": noisy(learned(0.0, 0.06), 0.1, random),
        "truncated": 0.001,
    }
    rows: list[Row] = steps(STEPS, **columns)
    held_out = {
        step: (p, p - 0.04, p + 0.04) for step, p in ((s, right[max(s - 1, 0)] - 0.03) for s in range(0, 121, 10))
    }
    samples = [StepSamples.of_groups(step, answers(right[step - 1], random)) for step in range(1, STEPS + 1)]
    return measured("pass@1", held_out, rows), samples


def answers(right: float, random: Generator) -> list[Group]:
    """Of 32 prompts among 1,000, 16 answers each: right ones are a little longer."""
    groups = []
    for prompt in random.choice(1000, 32, replace=False):
        hits = random.random(16) < right
        lengths = np.clip(random.normal(18 + 3 * hits, 4), 2, 39).astype(int)
        groups.append(
            group(f"p{prompt}", [{"reward": float(h), "tokens": int(n)} for h, n in zip(hits, lengths, strict=True)])
        )
    return groups


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_said_of_a_healthy_run(seed: int) -> None:
    rows, samples = grpo(np.random.default_rng(seed))
    recipe = facts(training={"prompts_per_step": 32}, method={"group_size": 16})
    for end in range(1, len(rows) + 1, 4):
        step = int(rows[end - 1]["step"])
        assert found(History(recipe, rows[:end], samples[max(0, step - 10) : step])) == {}, step


@pytest.mark.parametrize("seed", range(3))
def test_nothing_is_said_of_healthy_imitation(seed: int) -> None:
    """The loss falls; gradients are large at first, and go up and down."""
    random = np.random.default_rng(seed)
    norms = [10.7, 6.0, 4.2, *noisy(learned(2.0, 0.45, STEPS - 3), 0.4, random)]
    rows = steps(
        STEPS, IMITATING, loss=noisy(learned(2.9, 0.13), 0.15, random), grad_norm=norms, entropy=learned(2.8, 0.14)
    )
    held_out = {
        step: (loss, 0.95 * loss, 1.05 * loss)
        for step, loss in zip(range(0, 121, 10), learned(2.9, 0.2, 13), strict=True)
    }
    rows = measured("loss", held_out, rows)
    for end in range(1, len(rows) + 1):
        assert found(History(facts("sft"), rows[:end])) == {}, end


def test_nothing_is_said_of_preferences_that_are_learned() -> None:
    random = np.random.default_rng(0)
    accuracy = [float(random.binomial(32, p) / 32) for p in learned(0.5, 0.9)]
    columns: dict[str, Column] = {
        "loss": noisy(learned(0.69, 0.3), 0.05, random),
        "pair_accuracy": accuracy,
        # Rejected completions become unlikely, so that k3 is large, as it should be; rewards are the grades.
        "kl": 2.4,
        "entropy": learned(0.5, 0.04),
        "reward__mean": 0.5,
        "reward__std": 0.5,
        "reward__failed": 0.0,
        "groups__zero_spread": 0.0,
    }
    rows = steps(STEPS, IMITATING, **columns)
    dpo = facts("dpo", training={"prompts_per_step": 32})
    for end in range(1, len(rows) + 1):
        assert found(History(dpo, rows[:end])) == {}, end


def test_of_a_long_run_the_held_out_measures_are_kept() -> None:
    """The best is of step 100; 700 steps later its row is gone, and its measure is not."""
    at = {0: (0.3, 0.25, 0.35), 100: (0.6, 0.55, 0.65), 800: (0.45, 0.4, 0.5)}
    rows = measured("pass@1", at, steps(800))
    said: list[str] = []
    watch = Watch(facts().tree, said.append)
    for row in rows:
        watch(int(row["step"]), row, [])
    [line] = said
    assert line.startswith("step 800: Held-out is past its best. Held-out pass@1 was 0.6 (0.55 to 0.65) at step 100")
    assert len(watch._first) + len(watch._last) == FIRST + LAST
    assert [row["step"] for row in watch._measured] == [100]
    assert set(watch._measured[0]) == {"step", "held_out/pass@1", "held_out/pass@1_low", "held_out/pass@1_high"}


ODD: dict[str, float] = {
    "value/explained_variance": 0.1,
    "pair_accuracy": 0.5,
    "kl_old": 0.1,
    "environment/failed": 0.0,
}
FACTORS = (0.0, 1.0, -3.0, 50.0, math.nan, math.inf)
TREES: tuple[dict[str, Any], ...] = (
    {},
    {"method": "mine", "reward": "task", "rollout": None, "training": [1]},
    {"method": {"name": "mine", "group_size": "many", "eps_low": [0.1], "lam": None}, "reward": [{"weight": "1"}, 3]},
    dict(facts().tree),
)


@pytest.mark.parametrize("tree", TREES)
def test_no_illness_fails_at_figures_and_recipes_of_any_shape(tree: dict[str, Any]) -> None:
    """A method of a user's own has other settings, and metrics that come and go."""
    random = np.random.default_rng(0)
    every = {**USUAL, **IMITATING, **ODD}
    for _ in range(100):
        rows: list[Row] = []
        for step in range(60):
            values = {name: float((value or 1.0) * random.choice(FACTORS)) for name, value in every.items()}
            rows.append({"step": step, **{name: value for name, value in values.items() if random.random() < 0.8}})
        rows = measured("pass@1", {step: (random.random(), 0.1, 0.9) for step in range(0, 60, 7)}, rows)
        found(History(Facts(tree), rows, [StepSamples.of_groups(step, []) for step in range(3)]))
