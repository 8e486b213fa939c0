"""The models of a run, as its recipe names them or as a checkpoint has them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharpen.errors import ModelError
from sharpen.methods import Role
from sharpen.models.adapter_files import AdapterFiles, find_adapter
from sharpen.models.load import located
from sharpen.models.lora import add_adapter, read_adapter, store_frozen_in_bfloat16
from sharpen.models.model import Model
from sharpen.models.padding import same_tokens
from sharpen.models.policy import Policy, load_policy
from sharpen.models.reference import base_policy, copy_policy
from sharpen.models.scorer import load_scorer
from sharpen.recipe.schema import Recipe
from sharpen.rewards.combine import WeightedSum
from sharpen.rewards.models.model_reward import ModelReward
from sharpen.rewards.reward import Reward
from sharpen.runs.lookup import find_model
from sharpen.training.reference import Reference


def load_model(recipe: Recipe, role: Role, start: str, trust_remote_code: bool, *, saved: Path | None = None) -> Model:
    """The model at ``start`` in its role, with the recipe's settings, and with the weights that are ``saved``.

    A run's folder is its latest checkpoint. With LoRA the base is loaded from ``start`` in any case. Where there is an
    adapter at ``start``, its base is the base, and training goes on with that adapter.
    """
    if recipe.model.lora is None:
        model = _load(recipe, role, str(saved or find_model(start).path), trust_remote_code)
    else:
        path, begun = _start(start)
        model = _load(recipe, role, path if begun is None else begun.base, trust_remote_code)
        lora = recipe.model.lora
        add_adapter(model, rank=lora.rank, alpha=lora.alpha, targets=lora.targets, seed=recipe.seed)
        adapter = begun if saved is None else _saved_adapter(saved)
        if adapter is not None:
            read_adapter(model, adapter)
            if isinstance(model, Policy):
                model.load_value_head(adapter.path)
        store_frozen_in_bfloat16(model)
    # Matrix products round differently with where in memory a matrix begins. A file has its weights anywhere, torch
    # on even ground, so that the weights of a checkpoint give the very bits that those they were saved from gave.
    for weight in (*model.model.parameters(), *model.model.buffers()):
        weight.data = weight.data.clone()
    return model


def load_helpers(
    recipe: Recipe, main: Model, reward: Reward | None, checkpoint: Path | None, trust_remote_code: bool
) -> dict[Role, Model]:
    """What is trained beside the run's own model: a critic, which begins as the recipe says, or as the reward model."""
    begun = recipe.method.critic_start or _reward_model(reward) or recipe.model.path
    helpers: dict[Role, Model] = {}
    for objective in recipe.method.objectives()[1:]:
        role = objective.model
        helper = load_model(recipe, role, begun, trust_remote_code, saved=checkpoint and checkpoint / role)
        if not same_tokens(helper.tokenizer, main.tokenizer):
            raise ModelError(f"{begun}: a {role} reads the policy's own tokens, and this model has others")
        helpers[role] = helper
    return helpers


def load_reference(
    recipe: Recipe, models: Mapping[Role, Model], checkpoint: Path | None, trust_remote_code: bool
) -> Reference | None:
    """The initial policy, frozen; of a reference that moves, what the checkpoint has.

    With LoRA it is the base with the adapter off, or an adapter of its own on the same base.
    """
    if not recipe.method.needs_reference:
        return None
    kl = recipe.method.kl_settings
    policy = models["policy"]
    assert isinstance(policy, Policy)
    if policy.adapter is not None:
        return Reference(_adapted_reference(recipe, policy, checkpoint), policy, kl)
    if checkpoint is None:
        return Reference(copy_policy(policy), policy, kl)
    saved = None if kl.reference == "fixed" else checkpoint / "reference"
    loaded = load_model(recipe, "policy", recipe.model.path, trust_remote_code, saved=saved)
    assert isinstance(loaded, Policy)
    loaded.model.requires_grad_(False)
    return Reference(loaded, policy, kl)


def _load(recipe: Recipe, role: Role, path: str, trust_remote_code: bool) -> Model:
    settings: dict[str, Any] = {
        "compute_dtype": recipe.model.compute_dtype,
        "device": recipe.model.device,
        "gradient_checkpointing": recipe.model.gradient_checkpointing,
        "compiled": recipe.model.compiled,
        "trust_remote_code": trust_remote_code,
    }
    if role == "policy":
        return load_policy(path, **settings)
    return load_scorer(path, kind="sequence" if role == "outcome_reward_model" else "token", **settings)


def _adapted_reference(recipe: Recipe, policy: Policy, checkpoint: Path | None) -> Policy:
    begun = _start(recipe.model.path)[1]
    moves = recipe.method.kl_settings.reference != "fixed"
    if begun is None and not moves:
        return base_policy(policy)
    reference = copy_policy(policy)
    if checkpoint is not None:
        saved = _saved_adapter(checkpoint / "reference") if moves else begun
        assert saved is not None
        read_adapter(reference, saved)
    return reference


def _start(named: str) -> tuple[str, AdapterFiles | None]:
    path = located(find_model(named).path)
    return path, find_adapter(path)


def _saved_adapter(folder: Path) -> AdapterFiles:
    adapter = find_adapter(str(folder))
    if adapter is None:
        raise ModelError(f"{folder}: holds a whole model, where model.lora needs an adapter")
    return adapter


def _reward_model(reward: Reward | None) -> str | None:
    """The reward model that completions are scored by, if it reads the policy's own tokens."""
    weighted = zip(reward.rewards, reward.weights, strict=True) if isinstance(reward, WeightedSum) else [(reward, 1.0)]
    return next(
        (r.scorer.source for r, weight in weighted if weight and isinstance(r, ModelReward) and r.same_tokens), None
    )
