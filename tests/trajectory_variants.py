"""Every method with the settings that treat a trajectory's tokens differently, on hand-made trajectories."""

from __future__ import annotations

from functools import cache
from typing import Any

from sharpen.methods import METHODS, Method, resolve_method
from sharpen.models.forward import MicrobatchLimits
from sharpen.training.ranks import Ranks
from sharpen.types import Group
from trajectory_groups import data_groups, drawn_groups
from trajectory_steps import Done, assert_same, expected, floats, learn, models_of

BOUND = 1e-10
CUTS = (
    MicrobatchLimits(100_000, True),
    MicrobatchLimits(1, True),
    MicrobatchLimits(15, True),
    MicrobatchLimits(30, False),
)

VARIANTS: dict[str, dict[str, Any]] = {
    **{name: {} for name in METHODS if name not in ("online_rft", "gspo", "ppo")},
    "sft per sequence": {"reduction": "per_sequence"},
    "online_rft": {"threshold": 0.5},
    "online_rft per sequence": {"reduction": "per_sequence", "threshold": 0.5, "unique": False, "at_most": 2},
    "dpo smoothed": {"beta": 0.4, "label_smoothing": 0.2},
    "dpo ipo": {"form": "ipo"},
    "reward_model with margin": {"margin": True, "noise": 0.1},
    "reinforce none": {"baseline": "none", "reduction": "per_sequence"},
    "reinforce mean": {"baseline": "group_mean", "beta": 0.3, "kl": {"placement": "reward", "estimator": "k2"}},
    "reinforce clipped": {"clip": 0.2, "old": "rollout", "reduction": "tokens_of_batch", "entropy_coef": 0.1},
    "reinforce_plus_plus updates": {"updates_per_rollout": 2},
    "ppo": {"minibatches": 1},
    "ppo updates": {"minibatches": 1, "updates_per_rollout": 2, "value_clip": 0.05},
    "ppo td": {"minibatches": 1, "value_target": "td", "gamma": 0.9, "bootstrap_truncated": True},
    "ppo lambda": {"minibatches": 1, "lam": 0.5, "gamma": 0.9, "bootstrap_truncated": True, "old": "rollout"},
    "ppo raw": {"minibatches": 1, "whiten_advantages": False, "beta": 0.3, "mask_truncated": True},
    "ppo kl form": {"minibatches": 1, "form": "kl", "updates_per_rollout": 2, "kl": {"estimator": "exact"}},
    "ppo shared": {"minibatches": 1, "critic": "shared", "value_coef": 0.5, "bootstrap_truncated": True},
    "ppo shared td": {"minibatches": 1, "critic": "shared", "value_target": "td", "kl": {"estimator": "k3"}},
    "grpo minibatches": {"minibatches": 2, "updates_per_rollout": 2},
    "grpo rollout": {"old": "rollout"},
    "grpo process": {"supervision": "process"},
    "grpo own step": {"supervision": "own_step", "std": "none", "reduction": "tokens_of_batch"},
    "grpo tokens of group": {"reduction": "tokens_of_group", "std": "batch", "ddof": 0},
    "grpo tokens of batch": {"reduction": "tokens_of_batch", "std": "none"},
    "grpo constant": {"reduction": "constant", "ddof": 0, "std_eps": 0.1},
    "grpo overlong": {"overlong_share": 0.5, "mask_truncated": True},
    "grpo k3": {"beta": 0.3, "old": "rollout", "entropy_coef": 0.1},
    "grpo weighted k3": {"beta": 0.3, "old": "rollout", "kl": {"estimator": "weighted_k3"}},
    "grpo exact": {"beta": 0.3, "kl": {"estimator": "exact"}, "entropy_coef": 0.1},
    "grpo exact in the reward": {"beta": 0.3, "kl": {"estimator": "exact", "placement": "reward"}},
    "grpo k1 in the reward": {"beta": 0.3, "kl": {"estimator": "k1", "placement": "reward"}},
    "grpo corrected": {"tis_cap": 1.1, "beta": 0.3},
    "grpo stale": {"tis_cap": 1.1, "dual_clip": 1.3, "beta": 0.3, "kl": {"estimator": "weighted_k3"}},
    "dapo rollout": {"old": "rollout"},
    "gspo": {"minibatches": 1},
    "gspo minibatches": {"minibatches": 2, "updates_per_rollout": 2, "eps_low": 0.1, "eps_high": 0.1},
    "gspo rollout": {"minibatches": 1, "old": "rollout", "beta": 0.3},
    "gspo token": {"minibatches": 1, "form": "token"},
    "gspo token rollout": {"minibatches": 1, "old": "rollout", "form": "token"},
    "gspo stale": {"minibatches": 1, "updates_per_rollout": 2, "eps_low": 0.1, "eps_high": 0.1, "tis_cap": 1.1},
    "gspo truncated stale": {"minibatches": 1, "eps_low": 0.1, "eps_high": 0.1, "tis_cap": 1.1, "mask_truncated": True},
    "gspo token stale": {"minibatches": 1, "form": "token", "eps_high": 0.1, "tis_cap": 1.1},
    "gspo process": {"minibatches": 1, "old": "rollout", "form": "token", "supervision": "process"},
    "cispo rollout": {"old": "rollout", "eps_low": 0.2},
}
CUT = [
    *METHODS,
    *("ppo shared", "ppo updates", "dpo ipo", "grpo process", "grpo weighted k3", "grpo exact", "grpo stale"),
    *("gspo rollout", "gspo token", "gspo token rollout", "gspo process", "gspo minibatches", "cispo rollout"),
    *("gspo stale", "gspo truncated stale", "gspo token stale", "ppo kl form"),
]


def method_of(name: str) -> Method:
    return resolve_method({"name": name.split()[0], **VARIANTS[name]})


def groups_of(name: str, architecture: str = "llama") -> list[Group]:
    method: Any = method_of(name)
    models = models_of(architecture)
    if method.source().reads != "prompts" or method.name == "rft":
        return data_groups(models.trajectories, scored=method.source().reads not in ("demonstrations", "prompts"))
    # About as far from the policy as the method's bounds are wide.
    versions = {1: 1, 2: 1} if name.endswith("stale") else None
    now = floats(models.said("policy").logprobs)
    return drawn_groups(models.trajectories, now, 2 * getattr(method, "eps_high", 0.2), versions)


def version_of(name: str) -> int:
    return int(name.endswith("stale"))


@cache
def formula(name: str, architecture: str = "llama") -> Done:
    return expected(method_of(name), groups_of(name, architecture), models_of(architecture), version_of(name))


def learned(
    name: str,
    limits: MicrobatchLimits,
    architecture: str = "llama",
    ranks: Ranks | None = None,
    *,
    record_tokens: bool = False,
) -> Done:
    models, groups = models_of(architecture), groups_of(name, architecture)
    return learn(method_of(name), groups, limits, models, ranks, version_of(name), record_tokens=record_tokens)


def assert_the_formula(name: str, limits: MicrobatchLimits, architecture: str = "llama") -> Done:
    found = learned(name, limits, architecture)
    assert_same(found, formula(name, architecture), BOUND)
    return found
