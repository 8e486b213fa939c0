"""A recipe and its inputs → a trainer that is ready to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch

from sharpen.config import Recipe
from sharpen.errors import ModelError
from sharpen.evaluation.estimators import Estimate
from sharpen.evaluation.runner import evaluate
from sharpen.inputs import Inputs, Say, groups_of, prompts_of
from sharpen.methods import Role
from sharpen.models.model import Model
from sharpen.models.policy import Policy, load_policy
from sharpen.models.reference import copy_policy
from sharpen.models.scorer import load_scorer
from sharpen.named_model import find_model
from sharpen.rewards.combine import WeightedSum
from sharpen.rewards.model import ModelReward
from sharpen.rewards.reward import Reward
from sharpen.rollout.engine import Engine, Sampling
from sharpen.rollout.local import LocalEngine
from sharpen.rollout.sampling import Truncation
from sharpen.training.annotate import Annotator
from sharpen.training.centring import Centring, best_of
from sharpen.training.checkpoint import load_state
from sharpen.training.held_out import measure_groups
from sharpen.training.identity import check_identity, identity
from sharpen.training.loggers import MetricLogger, TensorBoardLogger, TrackioLogger, WandbLogger
from sharpen.training.reference import Reference
from sharpen.training.run_folder import RunFolder
from sharpen.training.trainer import Trainer
from sharpen.training.update import Limits
from sharpen.training.world import LocalWorld
from sharpen.types import Group, Prompt


def load_model(recipe: Recipe, role: Role, path: str, trust_remote_code: bool) -> Model:
    """The model at ``path`` in its role, with the recipe's settings. A run's folder is its latest checkpoint."""
    path = find_model(path).path
    settings: dict[str, Any] = {
        "compute_dtype": recipe.model.compute_dtype,
        "device": recipe.model.device,
        "gradient_checkpointing": recipe.model.gradient_checkpointing,
        "trust_remote_code": trust_remote_code,
    }
    if role == "policy":
        model: Model = load_policy(path, **settings)
    else:
        model = load_scorer(path, kind="sequence" if role == "outcome_reward_model" else "token", **settings)
    # Matrix products round differently with where in memory a matrix begins. A file has its weights anywhere, torch
    # on even ground, so that the weights of a checkpoint give the very bits that those they were saved from gave.
    for weight in (*model.model.parameters(), *model.model.buffers()):
        weight.data = weight.data.clone()
    return model


@contextmanager
def built_trainer(
    recipe: Recipe,
    inputs: Inputs,
    *,
    loggers: Sequence[MetricLogger],
    say: Say,
    trust_remote_code: bool,
    checkpoint: Path | None,
) -> Iterator[Trainer]:
    """Everything that a run needs, put together; what it holds open is closed at the end."""
    method, source = recipe.method, recipe.method.source()
    role = method.objectives()[0].model
    main = load_model(recipe, role, str(checkpoint or recipe.model.path), trust_remote_code)
    if inputs.reward is not None:
        inputs.reward.use_tokenizer(main.tokenizer)
    models: dict[Role, Model] = {
        role: main,
        **_load_helpers(recipe, main, inputs.reward, checkpoint, trust_remote_code),
    }
    if isinstance(main, Policy) and "values" in method.objectives()[0].needs and main.value_head is None:
        main.add_value_head()
    tokenizer, context = main.tokenizer, main.context_length
    prompts: tuple[Prompt, ...] = ()
    groups: tuple[Group, ...] = ()
    if source.reads == "prompts":
        prompts = prompts_of(
            inputs.rows,
            tokenizer,
            recipe.data,
            max_new_tokens=recipe.rollout.max_new_tokens,
            context_length=context,
            say=say,
        )
    else:
        groups = groups_of(source.reads, inputs.rows, tokenizer, recipe.data, context_length=context, say=say)
    engine = LocalEngine(main) if isinstance(main, Policy) else None
    reference = _load_reference(recipe, models, checkpoint, trust_remote_code)
    limits = Limits(recipe.training.tokens_per_microbatch, recipe.training.shared_prompt)
    # Log-probabilities are those of the distribution that is sampled from; data was sampled by nobody.
    temperature = recipe.rollout.temperature if source.on_policy else 1.0
    annotator = Annotator(models, reference, temperature, limits)
    fixed = None if reference is None or reference.moves else reference.policy
    identity_now = identity(prompts, groups, fixed)
    state = None if checkpoint is None else load_state(checkpoint)
    if state is not None:
        check_identity(state["identity"], identity_now)
    torch.manual_seed(recipe.seed)
    folder = RunFolder(recipe.run)
    world = LocalWorld(
        prompts=prompts,
        groups=groups,
        engine=engine,
        store=folder.write_kept,
        reward=inputs.reward,
        sampling=_sampling(recipe, Truncation(recipe.rollout.temperature)),
        max_reward_failures=recipe.rollout.max_reward_failures,
        seed=recipe.seed,
    )
    held_out = _held_out(recipe, inputs, main, engine, annotator, say)
    sinks = [*loggers, *_asked_loggers(recipe, folder, None if state is None else state["step"])]
    try:
        yield Trainer(
            recipe,
            folder,
            models=models,
            annotator=annotator,
            engine=engine,
            world=world,
            held_out=held_out,
            centring=_centring(recipe, inputs, main, groups, limits, say),
            loggers=sinks,
            say=say,
            identity=identity_now,
        )
    finally:
        for logger in sinks:
            logger.close()


def _load_helpers(
    recipe: Recipe, main: Model, reward: Reward | None, checkpoint: Path | None, trust_remote_code: bool
) -> dict[Role, Model]:
    """What is trained beside the run's own model: a critic, which begins as the recipe says, or as the reward model."""
    begun = recipe.method.critic_start or _reward_model(reward) or recipe.model.path
    helpers: dict[Role, Model] = {}
    for objective in recipe.method.objectives()[1:]:
        role = objective.model
        helper = load_model(recipe, role, str(checkpoint / role) if checkpoint else begun, trust_remote_code)
        if helper.tokenizer.get_vocab() != main.tokenizer.get_vocab():
            raise ModelError(f"{begun}: a {role} reads the policy's own tokens, and this model has others")
        helpers[role] = helper
    return helpers


def _reward_model(reward: Reward | None) -> str | None:
    """The reward model that completions are scored by, if it reads the policy's own tokens."""
    weighted = zip(reward.rewards, reward.weights, strict=True) if isinstance(reward, WeightedSum) else [(reward, 1.0)]
    return next(
        (r.scorer.source for r, weight in weighted if weight and isinstance(r, ModelReward) and r.same_tokens), None
    )


def _load_reference(
    recipe: Recipe, models: Mapping[Role, Model], checkpoint: Path | None, trust_remote_code: bool
) -> Reference | None:
    """The initial policy, frozen; of a reference that moves, what the checkpoint has."""
    if not recipe.method.needs_reference:
        return None
    kl = recipe.method.kl_settings
    policy = models["policy"]
    assert isinstance(policy, Policy)
    if checkpoint is None:
        return Reference(copy_policy(policy), policy, kl)
    path = recipe.model.path if kl.reference == "fixed" else str(checkpoint / "reference")
    loaded = load_model(recipe, "policy", path, trust_remote_code)
    assert isinstance(loaded, Policy)
    loaded.model.requires_grad_(False)
    return Reference(loaded, policy, kl)


def _sampling(recipe: Recipe, truncation: Truncation) -> Sampling:
    rollout = recipe.rollout
    return Sampling(rollout.max_new_tokens, truncation, rollout.stop, rollout.max_sequences)


def _held_out(
    recipe: Recipe, inputs: Inputs, main: Model, engine: Engine | None, annotator: Annotator, say: Say
) -> Callable[[], Mapping[str, Estimate]] | None:
    """The measurement on held-out rows, where the recipe wants it."""
    if inputs.held_out is None:
        return None
    settings = recipe.evaluation
    if inputs.held_out_reads != "prompts":
        groups = groups_of(
            inputs.held_out_reads,
            inputs.held_out,
            main.tokenizer,
            recipe.data,
            context_length=main.context_length,
            say=say,
        )
        return partial(measure_groups, recipe.method, annotator, groups[: settings.prompts])
    assert inputs.reward is not None
    assert engine is not None
    prompts = prompts_of(
        inputs.held_out,
        main.tokenizer,
        recipe.data,
        max_new_tokens=recipe.rollout.max_new_tokens,
        context_length=main.context_length,
        say=say,
    )
    reward = inputs.reward

    def answered() -> Mapping[str, Estimate]:
        return evaluate(
            engine,
            prompts[: settings.prompts],
            reward,
            n=settings.n,
            ks=settings.k,
            sampling=_sampling(
                recipe, Truncation(settings.temperature, settings.top_k, settings.top_p, settings.min_p)
            ),
            seed=recipe.seed,
            threshold=settings.threshold,
            max_reward_failures=recipe.rollout.max_reward_failures,
        ).measures

    return answered


def _centring(
    recipe: Recipe, inputs: Inputs, main: Model, ranked: Sequence[Group], limits: Limits, say: Say
) -> Centring | None:
    """On the demonstrations, or on the best of each ranking where there are none."""
    if not recipe.method.centres_scores:
        return None
    if inputs.demonstrations is None:
        return Centring(best_of(ranked), limits)
    shown = groups_of(
        "demonstrations",
        inputs.demonstrations,
        main.tokenizer,
        recipe.data,
        context_length=main.context_length,
        say=say,
    )
    return Centring(shown, limits)


def _asked_loggers(recipe: Recipe, folder: RunFolder, step: int | None) -> list[MetricLogger]:
    log = recipe.log
    loggers: list[MetricLogger] = []
    config = recipe.model_dump(mode="json")
    if log.tensorboard:
        loggers.append(TensorBoardLogger(folder.path / "tensorboard", purge_step=None if step is None else step + 1))
    if log.wandb is not None:
        loggers.append(WandbLogger(log.wandb, folder.path.name, config, run_id=folder.logging_id(), folder=folder.path))
    if log.trackio is not None:
        loggers.append(TrackioLogger(log.trackio, folder.path.name, config, resume=step is not None))
    return loggers
