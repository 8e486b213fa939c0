"""When a setting of one section has an effect that depends on another section."""

from __future__ import annotations

from typing import Any

from sharpen.settings import Effect


def _samples(recipe: Any) -> bool:
    """Whether completions are sampled to train on."""
    return bool(recipe.method.source().reads == "prompts")


def _answers(recipe: Any) -> bool:
    """Whether completions are sampled at all, to train on or to measure: a policy that no reward scores is measured by
    its loss."""
    scored = recipe.reward is not None or recipe.data.task is not None
    return bool(recipe.method.makes_a_policy and (scored or _samples(recipe)))


def _uses_reward(recipe: Any) -> bool:
    """Whether a reward scores completions; held-out rows count, as `sharpen eval` answers them."""
    data = recipe.data
    return _answers(recipe) and (_samples(recipe) or data.task is not None or data.held_out is not None)


def _reads_steps(recipe: Any) -> bool:
    mixed = recipe.method.mixed()
    methods = [recipe.method, *([] if mixed is None else [mixed.method])]
    return any(method.source().reads == "steps" for method in methods)


EFFECTS = (
    Effect("reward", "for a policy that samples completions or has held-out prompts", lambda r: _uses_reward(r)),
    Effect("reward_check", "for a policy with a reward", _answers),
    Effect("data.step_separator", "for a method that learns from marked steps", _reads_steps),
    Effect(
        "data.demonstrations",
        "with data.train, for a method that normalises its model's scores",
        lambda r: r.data.task is None and r.method.normalises_scores,
    ),
    Effect("data.mixed", "for a method with a second source", lambda r: r.method.mixed() is not None),
    Effect("rollout", "for a policy", lambda r: r.method.makes_a_policy),
    Effect("rollout.temperature", "for a method that samples", _samples),
    Effect("rollout.turns", "where completions are sampled", _answers),
    Effect("rollout.max_reward_failures", "where completions are sampled", _answers),
    Effect(
        "rollout.lag",
        "for a method that draws from the policy that it trains",
        lambda r: r.method.source().on_policy,
    ),
    *(
        Effect(f"evaluation.{name}", "where completions are sampled", _answers)
        for name in ("n", "k", "threshold", "temperature", "top_p", "top_k", "min_p")
    ),
    Effect("checkpoint.best", "with evaluation.every", lambda r: r.evaluation.every > 0),
    Effect("log.samples_every", "for a method that samples", _samples),
)
