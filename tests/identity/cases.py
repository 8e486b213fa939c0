"""The runs that two versions are compared by: every method, and settings that take another path through the code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tiny_runs import tiny_tree

REWARDS = """
import re

def digits(completion, **row):
    return sum(c.isdigit() for c in completion) / 8

def hashes(completion, **row):
    return float("#" in completion)

def steps(completion, **row):
    ends = [found.end() for found in re.finditer(r"..", completion)] or [len(completion)]
    return [(end, sum(c.isdigit() for c in completion[:end]) / end if end else 0.0) for end in ends]
"""
"""Rewards of which an untrained model gets some."""

KL: dict[str, Any] = {"beta": 0.3}
LORA = {"lora": {"rank": 4, "alpha": 8}}

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ppo shared critic": ("ppo", {"method": {"critic": "shared", "value_coef": 0.5, "value_clip": 0.2}}),
    "ppo kl": ("ppo", {"method": {"form": "kl", "value_target": "td"}}),
    "ppo bootstrap": ("ppo", {"method": {"bootstrap_truncated": True, "gamma": 0.95}}),
    "grpo process": ("grpo", {"method": {"supervision": "process"}, "reward": {"name": "steps", "function": "steps"}}),
    "grpo own step": (
        "grpo",
        {"method": {"supervision": "own_step"}, "reward": {"name": "steps", "function": "steps", "total": "min"}},
    ),
    "grpo lora": ("grpo", {"model": LORA}),
    "grpo lora average": ("grpo", {"model": LORA, "method": {**KL, "kl": {"reference": "average", "decay": 0.5}}}),
    "reward_model lora": ("reward_model", {"model": LORA}),
    "ppo lora": ("ppo", {"model": LORA}),
    "dpo lora": ("dpo", {"model": LORA}),
    "grpo average": ("grpo", {"method": {**KL, "kl": {"reference": "average", "decay": 0.5}}}),
    "grpo reset": ("grpo", {"method": {**KL, "kl": {"reference": "reset", "reset_every": 2}}}),
    "grpo adaptive": ("grpo", {"method": {**KL, "kl": {"target": 1e-4, "horizon": 40}}}),
    "grpo exact": ("grpo", {"method": {**KL, "kl": {"estimator": "exact", "warmup_steps": 4}, "entropy_coef": 0.1}}),
    "grpo kl in the reward": ("grpo", {"method": {**KL, "kl": {"placement": "reward", "estimator": "k1"}}}),
    "grpo weighted k3": ("grpo", {"method": {**KL, "kl": {"estimator": "weighted_k3"}}}),
    "grpo truncated": ("grpo", {"method": {"mask_truncated": True, "tis_cap": 2.0, "overlong_share": 0.5}}),
    "grpo constant": ("grpo", {"method": {"reduction": "constant", "std": "batch", "ddof": 0}}),
    "grpo two rewards": ("grpo", {"reward": [{"name": "digits", "weight": 0.5}, {"name": "hashes", "weight": 2.0}]}),
    "grpo decoupled": ("grpo", {"method": {"combine": "normalise_then_sum"}, "reward": ["digits", "hashes"]}),
    "grpo plain layout": ("grpo", {"training": {"shared_prompt": False, "tokens_per_microbatch": 40}}),
    "grpo bfloat16": ("grpo", {"model": {"compute_dtype": "bfloat16"}}),
    "grpo refilled": ("grpo", {"method": {"dynamic_sampling": True, "max_rounds": 2}, "reward": "hashes"}),
}
"""Name of the case → method and what else is set. A reward is named as in `REWARDS`."""


def cases(methods: list[str]) -> dict[str, tuple[str, dict[str, Any]]]:
    """All cases: each method as it is, then the variants."""
    return {**{name: (name, {}) for name in methods}, **VARIANTS}


def recipe(name: str, method: str, changes: dict[str, Any], *, folder: Path, model: Path, rewards: Path) -> Any:
    """The recipe of a case as a tree of plain values; the run goes to a folder of that name in ``folder``."""
    tree = tiny_tree(folder / name.replace(" ", "_"), model, method, **{"reward": "digits", **changes})
    # Loss and figures, not samples, are measured of what has no policy.
    tree["checkpoint"]["best"] = "loss" if method.endswith("reward_model") else "reward"
    return {**tree, "reward": _located(tree["reward"], rewards)} if "reward" in tree else tree


def _located(reward: Any, file: Path) -> Any:
    """The reward with its functions named by their file."""
    if isinstance(reward, list):
        return [_located(one, file) for one in reward]
    if isinstance(reward, str):
        return f"{file}:{reward}"
    return dict(_located_settings(reward, file))


def _located_settings(reward: dict[str, Any], file: Path) -> Iterator[tuple[str, Any]]:
    for key, value in reward.items():
        named = key == "function" or (key == "name" and value != "steps")
        yield key, f"{file}:{value}" if named else value
