"""Loading the models of a run, from where its recipe says or from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sharpen.errors import ModelError
from sharpen.methods import Method, Role
from sharpen.models.adapter_files import AdapterFiles, find_adapter
from sharpen.models.chat_template import take_template
from sharpen.models.ends import saved_ends
from sharpen.models.load import align, located
from sharpen.models.lora import add_adapter, read_adapter, store_frozen_in_bfloat16
from sharpen.models.model import Model
from sharpen.models.padding import same_tokens
from sharpen.models.policy import Policy, load_policy
from sharpen.models.reference import base_policy, frozen, second_adapter
from sharpen.models.scorer import load_scorer
from sharpen.models.settings import ModelSettings
from sharpen.models.weight_files import model_sha256
from sharpen.rewards.by_source import BySource
from sharpen.rewards.combine import WeightedSum
from sharpen.rewards.models.model_reward import ModelReward
from sharpen.rewards.reward import Reward
from sharpen.runs.lookup import find_model
from sharpen.training.reference import Reference


def load_model(
    settings: ModelSettings,
    role: Role,
    start: str,
    *,
    seed: int,
    trust_remote_code: bool,
    saved: Path | None = None,
) -> Model:
    """The model at ``start`` in its role; with the weights of the checkpoint ``saved``, if given.

    A run's folder stands for its latest checkpoint. With LoRA the base always comes from ``start``: if that is itself
    an adapter, its base is used and training continues from that adapter. ``seed`` initialises a new adapter.
    """
    lora = settings.lora
    if lora is None:
        model = _load(settings, role, find_model(str(saved or start)).path, trust_remote_code)
    else:
        path, initial = _start(start)
        model = _load(settings, role, path if initial is None else initial.base, trust_remote_code)
        add_adapter(
            model,
            rank=lora.rank,
            alpha=lora.alpha,
            targets=lora.targets,
            seed=seed,
            base_sha256=model_sha256(model.source),
        )
        adapter = initial if saved is None else _saved_adapter(saved)
        take_template(model.tokenizer, adapter)
        if adapter is not None:
            read_adapter(model, adapter)
            if isinstance(model, Policy):
                model.load_value_head(adapter.path)
                model.end_at(saved_ends(adapter.path))
        store_frozen_in_bfloat16(model)
    align(model.model)
    return model


def load_helpers(
    settings: ModelSettings,
    method: Method,
    main: Model,
    reward: Reward | None,
    checkpoint: Path | None,
    *,
    seed: int,
    trust_remote_code: bool,
) -> dict[Role, Model]:
    """The models trained beside the main one: a critic, initialised from the one the method names, or from the reward
    model, or from the policy."""
    start = method.critic_start or _reward_model(reward) or settings.path
    helpers: dict[Role, Model] = {}
    for objective in method.objectives()[1:]:
        role = objective.model
        saved = checkpoint and checkpoint / role
        helper = load_model(settings, role, start, seed=seed, trust_remote_code=trust_remote_code, saved=saved)
        if not same_tokens(helper.tokenizer, main.tokenizer):
            raise ModelError(f"{start}: a {role} reads the policy's tokens, but this model has others")
        helpers[role] = helper
    return helpers


def load_frozen(
    settings: ModelSettings, method: Method, main: Model, *, seed: int, trust_remote_code: bool
) -> dict[str, Model]:
    """The models that the method and its second source use and do not train, such as teachers."""
    mixed = method.mixed()
    own = method.frozen_models()
    of_second = {} if mixed is None else mixed.method.frozen_models()
    for name in own.keys() & of_second.keys():
        if own[name] != of_second[name]:
            raise ModelError(
                f"method {method.name} has its {name} at {own[name]}, its second source at {of_second[name]}: give "
                "them different names"
            )
    return {
        name: _load_frozen(settings, name, path, main, seed=seed, trust_remote_code=trust_remote_code)
        for name, path in {**own, **of_second}.items()
    }


def load_reference(
    settings: ModelSettings,
    method: Method,
    models: Mapping[Role, Model],
    checkpoint: Path | None,
    *,
    seed: int,
    trust_remote_code: bool,
) -> Reference | None:
    """The frozen initial policy, or the checkpoint's copy if the reference moves, or the model that the settings name;
    None for a method without one.

    The initial policy is loaded, not copied from the policy, which may be sharded. With LoRA it is the policy's own
    root with the adapter off, or with a second adapter.
    """
    if not method.needs_reference:
        return None
    kl = method.kl_settings
    policy = models["policy"]
    assert isinstance(policy, Policy)
    moves = kl.reference != "fixed"
    if kl.path is not None:
        named = _load_frozen(settings, "reference", kl.path, policy, seed=seed, trust_remote_code=trust_remote_code)
        return Reference(named, policy, kl)
    if policy.adapter is not None:
        return Reference(_adapted_reference(policy, settings.path, checkpoint, moves=moves), policy, kl)
    # At the start the policy says where it came from: of a run that goes on, that is one of several checkpoints.
    start = policy.source if checkpoint is None else settings.path
    saved = checkpoint / "reference" if checkpoint is not None and moves else None
    loaded = load_model(settings, "policy", start, seed=seed, trust_remote_code=trust_remote_code, saved=saved)
    assert isinstance(loaded, Policy)
    return Reference(frozen(loaded), policy, kl)


def _load_frozen(
    settings: ModelSettings, name: str, path: str, main: Model, *, seed: int, trust_remote_code: bool
) -> Policy:
    whole = settings.model_copy(update={"lora": None})
    model = load_model(whole, "policy", path, seed=seed, trust_remote_code=trust_remote_code)
    assert isinstance(model, Policy)
    if not same_tokens(model.tokenizer, main.tokenizer):
        raise ModelError(f"{path}: the {name} reads the policy's tokens, but this model has others")
    return frozen(model)


def _load(settings: ModelSettings, role: Role, path: str, trust_remote_code: bool) -> Model:
    options: dict[str, Any] = {
        "compute_dtype": settings.compute_dtype,
        "device": settings.device,
        "gradient_checkpointing": settings.gradient_checkpointing,
        "compiled": settings.compiled,
        "trust_remote_code": trust_remote_code,
    }
    if role == "policy":
        return load_policy(path, **options)
    return load_scorer(path, kind="sequence" if role == "outcome_reward_model" else "token", **options)


def _adapted_reference(policy: Policy, start: str, checkpoint: Path | None, *, moves: bool) -> Policy:
    initial = _start(start)[1]
    if initial is None and not moves:
        return base_policy(policy)
    reference = second_adapter(policy)
    saved = initial if checkpoint is None or not moves else _saved_adapter(checkpoint / "reference")
    if saved is not None:
        read_adapter(reference, saved)
        reference.source = saved.path
    return reference


def _start(name: str) -> tuple[str, AdapterFiles | None]:
    path = located(find_model(name).path)
    return path, find_adapter(path)


def _saved_adapter(folder: Path) -> AdapterFiles:
    adapter = find_adapter(find_model(str(folder)).path)
    if adapter is None:
        raise ModelError(f"{folder}: holds a whole model, but model.lora needs an adapter")
    return adapter


def _reward_model(reward: Reward | None) -> str | None:
    """The reward model that scores the completions, those of all sources, if it reads the policy's tokens."""
    if isinstance(reward, BySource):
        models = {_reward_model(one) for one in reward.rewards.values()}
        return models.pop() if len(models) == 1 else None
    weighted = zip(reward.rewards, reward.weights, strict=True) if isinstance(reward, WeightedSum) else [(reward, 1.0)]
    return next(
        (r.scorer.source for r, weight in weighted if weight and isinstance(r, ModelReward) and r.same_tokens), None
    )
