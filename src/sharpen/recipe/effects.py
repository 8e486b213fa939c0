"""When a setting of one section has an effect that depends on another section."""

from __future__ import annotations

from typing import Any

from sharpen.recipe.sources import has_common_reward
from sharpen.settings import Effect


def _samples(recipe: Any) -> bool:
    """Whether completions are sampled to train on."""
    return bool(recipe.method.source().reads == "prompts")


def _answers(recipe: Any) -> bool:
    """Whether completions are sampled at all, to train on or to measure: a policy that no reward scores is measured by
    its loss."""
    sources = (recipe.data, *recipe.data.sources.values())
    scored = any(given is not None for given in (recipe.reward, *(s.task for s in sources), *_own_rewards(recipe)))
    return bool(recipe.method.makes_a_policy and (scored or _samples(recipe)))


def _uses_reward(recipe: Any) -> bool:
    """Whether a reward scores completions; held-out rows count, as `sharpen eval` answers them."""
    return _answers(recipe) and (_samples(recipe) or recipe.has_held_out)


def _own_rewards(recipe: Any) -> list[Any]:
    return [source.reward for source in recipe.data.sources.values()]


def _is_common_reward(recipe: Any) -> bool:
    sources = recipe.data.sources.values()
    return not sources or any(has_common_reward(source) for source in sources)


def _reads_steps(recipe: Any) -> bool:
    mixed = recipe.method.mixed()
    methods = [recipe.method, *([] if mixed is None else [mixed.method])]
    return any(method.source().reads == "steps" for method in methods)


EFFECTS = (
    Effect("reward", "for a policy that samples completions or has held-out prompts", lambda r: _uses_reward(r)),
    # The verifier of a single task gives way to it.
    Effect("reward", "for data sources without a reward or task of their own", _is_common_reward),
    Effect("reward_check", "for a policy with a reward", _answers),
    Effect("data.step_separator", "for a method that learns from marked steps", _reads_steps),
    Effect(
        "data.demonstrations",
        "for a method that normalises its model's scores",
        lambda r: r.method.normalises_scores,
    ),
    Effect("data.mixed", "for a method with a second source", lambda r: r.method.mixed() is not None),
    Effect("data.sources.share", "with several data sources", lambda r: len(r.data.sources) > 1),
    Effect("data.sources.reward", "for a policy", lambda r: r.method.makes_a_policy),
    Effect("data.sources.turns", "for a policy", lambda r: r.method.makes_a_policy),
    Effect("rollout", "for a policy", lambda r: r.method.makes_a_policy),
    Effect("rollout.temperature", "for a method that samples", _samples),
    Effect("rollout.flow", "with turns", lambda r: r.conversational),
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
