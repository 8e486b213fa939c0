"""Illnesses of balance: one part or one prompt makes up nearly all that is learned from."""

from __future__ import annotations

from collections import Counter

import numpy as np

from sharpen.report.diagnosis.finding import Finding
from sharpen.report.diagnosis.history import History, in_steps, share
from sharpen.report.diagnosis.samples import Floats, Window

STEPS = 5
TRAJECTORIES, GROUPS = 200, 20
PROMPTS = 20
"""Of a few prompts, one that is not learned yet is often most of what is left."""
DECIDES, DROWNED = 0.95, 0.01
"""Shares of the spread of the reward within groups."""
VARIES = 0.1
"""A part varies in the groups whose deviation is more than this share of the largest of any group."""
OF_ONE_PROMPT = 0.5
ITS_STEPS = 3


def one_part_decides(history: History) -> Finding | None:
    """Of several weighted rewards that all vary, one makes up nearly all the spread within groups."""
    window, weights = history.window, history.part_weights
    total = float(window.deviations @ window.deviations) if len(window) else 0.0
    if len(window) < TRAJECTORIES or window.groups_with_spread < GROUPS or len(weights) < 2:
        return None
    deviations = {name: window.deviation(window.parts[name]) for name in weights}
    varying = {name for name, deviation in deviations.items() if _groups_that_vary(window, deviation) >= GROUPS}
    shares = {name: weights[name] * float(deviations[name] @ window.deviations) / total for name in varying}
    first = max(shares, key=lambda name: shares[name], default=None)
    drowned = [name for name in shares if abs(shares[name]) <= DROWNED]
    if first is None or shares[first] < DECIDES or not drowned:
        return None
    steps = (window.steps[0], window.steps[-1])
    others = ", ".join(f"{name} {share(max(0.0, shares[name]))} (weight {weights[name]:g})" for name in drowned)
    return Finding(
        "one_part_decides",
        "warning",
        f"{first} dominates the reward",
        f"Of the spread of the reward within the groups of {in_steps(steps)}, {share(min(1.0, shares[first]))} comes "
        f"from {first} (weight {weights[first]:g}); {others} varies too and contributes almost nothing.",
        history.facts.advice(
            "Give the rewards weights that make their spreads alike.",
            "`method.combine` normalise_then_sum brings each to the same spread first."
            if history.facts.get("method.combine") == "sum_then_normalise"
            else "",
        ),
        steps,
        tuple(f"reward/{name}" for name in (first, *drowned)),
        "samples",
    )


def one_prompt_dominates(history: History) -> Finding | None:
    """One prompt makes up most of the spread of the reward within groups, step after step."""
    window = history.window
    if len(window.steps) < STEPS or len(window) < TRAJECTORIES or window.groups_with_spread < GROUPS:
        return None
    squares: Counter[str] = Counter()
    for prompt_id, of_group in zip(window.prompt_ids, np.bincount(window.groups, window.deviations**2), strict=True):
        squares[prompt_id] += of_group
    first, most = squares.most_common(1)[0]
    seen = sum(first in one.prompt_ids for one in history.samples)
    if len(squares) < PROMPTS or most < OF_ONE_PROMPT * squares.total() or seen < ITS_STEPS:
        return None
    steps = (window.steps[0], window.steps[-1])
    return Finding(
        "one_prompt_dominates",
        "warning",
        "One prompt dominates the reward",
        f"Of the spread of the reward within the groups of {in_steps(steps)}, {share(most / squares.total())} comes "
        f"from prompt {first}, one of {len(squares)}; it was drawn in {seen} of {len(window.steps)} steps.",
        history.facts.advice(
            "Look at its row: is it there many times, or is its reward of another size than the others'?",
            "`method.std` group brings the rewards of all prompts to the same spread."
            if history.facts.get("method.std") != "group"
            else "",
        ),
        steps,
        ("reward/mean", "reward/std"),
        "samples",
    )


def _groups_that_vary(window: Window, deviation: Floats) -> int:
    sizes = np.bincount(window.groups, np.abs(deviation))
    return int((sizes > VARIES * sizes.max()).sum()) if sizes.max() > 0 else 0
