"""Numbers outside of their range, and what is no number."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from batteries.bad_inputs.case import RECIPE, Case, overridden
from tiny_runs import merge

_NUMBERS = (
    # A setting, what it may not be, and what else has to be set for it to have an effect.
    ("seed", "-1 2**63 10**400 true 1.5 .nan .inf [1] x", {}),
    ("training.steps", "-1 0 true 10**400 1.5 .nan .inf -.inf x", {}),
    ("training.prompts_per_step", "0 true 10**12", {}),
    ("training.tokens_per_microbatch", "0 -5 true 10**400", {}),
    ("rollout.max_new_tokens", "0 -1 true 10**400", {}),
    ("rollout.temperature", "0 -1 true 1e-320 1e300 .nan .inf", {}),
    ("rollout.lag", "-1 true 10**400", {}),
    ("rollout.max_reward_failures", "-0.1 1.1 true .nan", {}),
    ("rollout.top_p", "0.9 true", {}),
    ("rollout.engine.max_sequences", "0 true 10**400", {}),
    ("rollout.engine.kv_gib", "0 -1 true .inf 1e300", {}),
    ("optimizer.learning_rate", "0 -1e-6 true .nan .inf 1e300", {}),
    ("optimizer.betas", "[0.9] [0.9,0.9,0.9] [1,0.9] [0.9,1] [-0.1,0.9] [0.9,1.5] [true,0.9] [.nan,0.9] 0.9", {}),
    ("optimizer.eps", "0 -1 true 2 1e300", {}),
    ("optimizer.weight_decay", "-0.1 true 1e300 .inf", {}),
    ("optimizer.warmup_steps", "-1 true 10**400", {}),
    ("optimizer.min_ratio", "-0.1 1.1 true", {"optimizer": {"schedule": "linear"}}),
    ("optimizer.max_grad_norm", "0 -1 true .inf 1e300", {}),
    ("evaluation.every", "-1 true 10**400", {}),
    ("evaluation.prompts", "0 true 10**400", {"evaluation": {"every": 1}}),
    ("evaluation.n", "0 true 10**9 10**400", {"evaluation": {"every": 1}}),
    ("evaluation.k", "[] [0] [true] [1.5] 1 [10**400]", {"evaluation": {"every": 1}}),
    ("evaluation.threshold", "true .nan .inf 1e300", {}),
    ("evaluation.temperature", "-1 true 1e-320 1e300", {"evaluation": {"every": 1}}),
    ("evaluation.top_p", "0 1.1 true", {"evaluation": {"every": 1}}),
    ("evaluation.top_k", "-1 true 10**400", {"evaluation": {"every": 1}}),
    ("evaluation.min_p", "-0.1 1.1 true", {"evaluation": {"every": 1}}),
    ("checkpoint.every", "-1 true 10**400", {}),
    ("checkpoint.every_minutes", "-1 true .inf 1e300", {}),
    ("checkpoint.keep", "0 -1 true 10**400", {}),
    ("checkpoint.grace_s", "0 -1 true 1e300 .inf", {}),
    ("log.samples_every", "-1 true 10**400", {}),
    ("model.lora.rank", "0 true 10**9", {}),
    ("model.lora.alpha", "0 true 10**9", {}),
    ("reward_check.rows", "0 true 10**400", {}),
    ("reward_check.timeout_s", "0 true 1e300", {}),
)

_METHOD_NUMBERS = (
    ("grpo", "group_size", "0 1 true 10**9 10**400 1.5"),
    ("grpo", "beta", "-1 true .nan 1e300"),
    ("grpo", "eps_low", "0 1.1 -0.1 true 1e300"),
    ("grpo", "eps_high", "0 -0.1 true 1e300"),
    ("grpo", "dual_clip", "1 0.5 true 1e300"),
    ("grpo", "ddof", "2 true"),
    ("grpo", "std_eps", "-1 true 1e300"),
    ("grpo", "entropy_coef", "-1 true 1e300"),
    ("grpo", "tis_cap", "0.5 true 1e300"),
    ("grpo", "updates_per_rollout", "0 true 10**400"),
    ("grpo", "minibatches", "0 5 true 10**400"),
    ("grpo", "overlong_share", "-0.1 1.1 true"),
    ("grpo", "kl", '{"target":0} {"horizon":0} {"decay":1} {"warmup_steps":-1} {"target":true}'),
    ("dapo", "max_rounds", "0 true 10**400"),
    ("cispo", "eps_low", "1.1 0 true"),
    ("gspo", "eps_low", "1.1 0 true"),
    ("reinforce", "clip", "1.1 0 true 1e300"),
    ("reinforce_plus_plus", "clip", "1.1 0 true"),
    ("ppo", "gamma", "0 1.1 true"),
    ("ppo", "lam", "-0.1 1.1 true"),
    ("ppo", "value_clip", "0 true 1e300"),
    ("ppo", "critic_learning_rate_ratio", "0 true 1e300"),
    ("dpo", "beta", "0 -1 true 1e300"),
    ("dpo", "label_smoothing", "0.5 -0.1 true"),
    ("reward_model", "noise", "1 -0.1 true"),
    ("rft", "at_most", "0 true 10**400"),
    ("rft", "threshold", "true .nan"),
    ("rft", "prompts", "0 true"),
)

_REWARD_NUMBERS = (
    ("regex, pattern: a", "value", "true .nan .inf"),
    ("regex, pattern: a", "timeout_s", "0 true 1e300"),
    ("regex, pattern: a", "weight", "true .nan x 1e300"),
    ("regex, pattern: a", "gate", '{"at_least":true} {"otherwise":.nan} x'),
    ("regex, pattern: a", "call", '{"timeout_s":0} {"retries":true} {"retries":-1} {"at_once":0} {"timeout_s":1e300}'),
    ("repetition", "ngram", "0 true 1.5"),
    ("repetition", "penalty", "1 true"),
    ("soft_overlong, l_cache: 2", "l_max", "0 1 true 10**400"),
    ("math", "timeout_s", "0 true"),
    ("code_tests", "tolerance", "-1 1 true"),
    ("code_tests", "memory_bytes", "0 true 10**400"),
    ("code_tests", "total_timeout_s", "0 true .inf 1e300"),
    ("code_lint", "cost", "0 2 true"),
    ("reward_model, path: model", "batch_tokens", "0 true 10**400"),
    ("reward_model, path: model", "cache_size", "-1 true"),
)


def numbers() -> Iterator[Case]:
    for setting, values, changes in _NUMBERS:
        for value in values.split():
            yield _number(setting, value, changes)
    for method, setting, values in _METHOD_NUMBERS:
        for value in values.split():
            yield _number(f"method.{setting}", value, {"method": {"name": method, "group_size": None}})
    for reward, setting, values in _REWARD_NUMBERS:
        for value in values.split():
            yield overridden(
                f"number: reward {reward.partition(',')[0]}.{setting}={value}",
                f"reward={{name: {reward}, {setting}: {_written(value)}}}",
                words=(setting,),
            )


def _written(value: str) -> str:
    """A value with its powers as digits."""
    return re.sub(r"(\d+)\*\*(\d+)", lambda found: str(int(found[1]) ** int(found[2])), value)


def _number(setting: str, value: str, changes: Mapping[str, Any]) -> Case:
    tree = merge(RECIPE, changes)
    tree["method"] = {key: inner for key, inner in tree["method"].items() if inner is not None}
    return Case(
        f"number: {tree['method']['name']} {setting}={value}",
        ("run", "recipe.yaml", f"{setting}={_written(value)}"),
        (setting.rpartition(".")[2],),
        files={"recipe.yaml": json.dumps(tree)},
    )
