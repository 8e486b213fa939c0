"""Illnesses of a critic."""

from __future__ import annotations

from statistics import median

from sharpen.report.diagnosis.finding import Finding
from sharpen.report.diagnosis.history import History, in_steps, number, span, values

STEPS = 20
AT_LEAST = 30
"""A critic needs some steps to begin with."""


def critic_explains_nothing(history: History) -> Finding | None:
    """After many steps the critic's values are no better than a constant."""
    rows = history.last(STEPS)
    found = values(rows, "value/explained_variance")
    if len(history.trained) < AT_LEAST or len(found) < STEPS // 2 or median(found) > 0:
        return None
    return Finding(
        "critic_explains_nothing",
        "warning",
        "The critic explains nothing",
        f"The median of its explained variance is {number(median(found))} in {in_steps(span(rows))}; 0 is no better "
        "than a constant, so advantages are as noisy as without a critic.",
        history.facts.advice(
            "Let it learn faster: `method.critic_learning_rate_ratio`."
            if history.facts.get("method.critic") != "shared"
            else "Give it more weight with `method.value_coef`, or a model of its own: `method.critic` own.",
            "Draw more `training.prompts_per_step`.",
            "`method.lam` 1 makes advantages depend least on it.",
            "A method without a critic, such as grpo, does not need one.",
        ),
        span(rows),
        ("value/explained_variance", "critic/loss"),
    )
