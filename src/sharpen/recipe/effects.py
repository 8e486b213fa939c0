"""When a setting of one section has an effect that depends on another section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sharpen.recipe.sources import has_common_reward
from sharpen.settings import Effect

if TYPE_CHECKING:
    from sharpen.recipe.schema import Recipe


def _samples(recipe: Recipe) -> bool:
    """Whether completions are sampled to train on."""
    return recipe.method.source().reads == "prompts"


def _answers(recipe: Recipe) -> bool:
    """Whether completions are sampled at all, to train on or to measure: a policy that no reward scores is measured by
    its loss."""
    tasks = (recipe.data.task, *(source.task for source in recipe.data.sources.values()))
    scored = any(given is not None for given in (recipe.reward, *tasks, *_own_rewards(recipe)))
    return recipe.method.makes_a_policy and (scored or _samples(recipe))


def _uses_reward(recipe: Recipe) -> bool:
    """Whether a reward scores completions; held-out rows count, as `sharpen eval` answers them."""
    return _answers(recipe) and (_samples(recipe) or recipe.has_held_out)


def _writes_completions(recipe: Recipe) -> bool:
    """Whether the run writes completions down: those that it trains on, or its answers to held-out prompts."""
    return _samples(recipe) or recipe.log.tokens_every > 0 or (_uses_reward(recipe) and recipe.evaluation.every > 0)


def _own_rewards(recipe: Recipe) -> list[Any]:
    return [source.reward for source in recipe.data.sources.values()]


def _is_common_reward(recipe: Recipe) -> bool:
    sources = recipe.data.sources.values()
    return not sources or any(has_common_reward(source) for source in sources)


def _reads_steps(recipe: Recipe) -> bool:
    mixed = recipe.method.mixed()
    methods = [recipe.method, *([] if mixed is None else [mixed.method])]
    return any(method.source().reads == "steps" for method in methods)


def optimizer_steps(recipe: Recipe) -> int:
    passes, minibatches = recipe.method.passes_and_minibatches
    return recipe.training.steps * passes * minibatches


def _warms_up(recipe: Recipe) -> bool:
    return recipe.optimizer.warmup_steps <= optimizer_steps(recipe)


def _kl_warms_up(recipe: Recipe) -> bool:
    return recipe.method.kl_settings.warmup_steps <= recipe.training.steps


def _is_reset(recipe: Recipe) -> bool:
    method = recipe.method
    kl = method.kl_settings
    return not method.needs_reference or kl.reference != "reset" or kl.reset_every < recipe.training.steps


def _draws_on_policy(recipe: Recipe) -> bool:
    return recipe.method.source().on_policy


def _makes_a_policy(recipe: Recipe) -> bool:
    return recipe.method.makes_a_policy


def _answers_differ(recipe: Recipe) -> bool:
    """At temperature 0 all answers to a prompt are equal, unless what replies between turns is random."""
    return recipe.evaluation.temperature > 0 or recipe.conversational


def _steps(count: int, kind: str) -> str:
    return f"this run has {count} {kind} step{'s' * (count != 1)}"


EFFECTS = (
    Effect("reward", "for a policy that samples completions or has held-out prompts", _uses_reward),
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
    Effect("data.sources.reward", "for a policy that samples completions or has held-out prompts", _uses_reward),
    Effect("data.sources.turns", "where completions are sampled", _answers),
    Effect("rollout", "for a policy", _makes_a_policy),
    Effect("rollout.temperature", "for a method that samples", _samples),
    Effect("rollout.flow", "with turns", lambda r: r.conversational),
    Effect("rollout.turns", "where completions are sampled", _answers),
    Effect("rollout.max_reward_failures", "where completions are sampled", _answers),
    Effect("rollout.lag", "for a method that draws from the policy that it trains", _draws_on_policy),
    Effect(
        "optimizer.warmup_steps",
        "up to the number of the run's optimizer steps",
        _warms_up,
        lambda r: (
            f"is {r.optimizer.warmup_steps}, and {_steps(optimizer_steps(r), 'optimizer')}: lower it, or raise "
            "training.steps"
        ),
    ),
    Effect(
        "method.kl.warmup_steps",
        "up to `training.steps`",
        _kl_warms_up,
        lambda r: (
            f"is {r.method.kl_settings.warmup_steps}, and {_steps(r.training.steps, 'training')}: lower it, or raise "
            "training.steps"
        ),
    ),
    Effect(
        "method.kl.reference",
        "with reset_every below `training.steps`, if it is reset",
        _is_reset,
        lambda r: (
            f"is reset after every {r.method.kl_settings.reset_every} steps, and "
            f"{_steps(r.training.steps, 'training')}, so it never would be: lower method.kl.reset_every, or raise "
            "training.steps"
        ),
    ),
    *(
        Effect(f"evaluation.{name}", "where completions are sampled", _answers)
        for name in ("n", "k", "threshold", "temperature", "top_p", "top_k", "min_p")
    ),
    *(
        Effect(
            f"evaluation.{name}",
            "with temperature above 0 or turns, as greedy answers are equal",
            _answers_differ,
        )
        for name in ("n", "k")
    ),
    Effect("checkpoint.best", "with evaluation.every", lambda r: r.evaluation.every > 0),
    Effect(
        "log.samples_every",
        "for a method that samples, with held-out prompts to answer, or with log.tokens_every",
        _writes_completions,
    ),
)
