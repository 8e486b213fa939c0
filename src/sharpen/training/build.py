"""A recipe and its inputs → a trainer that is ready to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from sharpen.config import Recipe
from sharpen.evaluation.runner import Evaluation, evaluate
from sharpen.inputs import Inputs, Say, demonstrations_of, prompts_of
from sharpen.models.policy import Policy, load_policy
from sharpen.rollout.engine import Engine, Sampling
from sharpen.rollout.local import LocalEngine
from sharpen.rollout.sampling import Truncation
from sharpen.training.checkpoint import load_state
from sharpen.training.identity import check_identity, identity
from sharpen.training.loggers import MetricLogger, TensorBoardLogger, TrackioLogger, WandbLogger
from sharpen.training.run_folder import RunFolder
from sharpen.training.trainer import Trainer
from sharpen.training.world import LocalWorld
from sharpen.types import Group, Prompt


def load_model(recipe: Recipe, path: str, trust_remote_code: bool) -> Policy:
    """The model at ``path``, with the recipe's settings."""
    model = recipe.model
    return load_policy(
        path,
        compute_dtype=model.compute_dtype,
        device=model.device,
        gradient_checkpointing=model.gradient_checkpointing,
        trust_remote_code=trust_remote_code,
    )


@contextmanager
def built_trainer(
    recipe: Recipe,
    policy: Policy,
    inputs: Inputs,
    *,
    loggers: Sequence[MetricLogger],
    say: Say,
    trust_remote_code: bool,
    checkpoint: Path | None,
) -> Iterator[Trainer]:
    """Everything that a run needs, put together; what it holds open is closed at the end."""
    tokenizer, context = policy.tokenizer, policy.context_length
    new_tokens = recipe.rollout.max_new_tokens
    prompts: tuple[Prompt, ...] = ()
    demonstrations: tuple[Group, ...] = ()
    if recipe.method.source().reads == "demonstrations":
        demonstrations = demonstrations_of(inputs.rows, tokenizer, recipe.data, context_length=context, say=say)
    else:
        prompts = prompts_of(
            inputs.rows, tokenizer, recipe.data, max_new_tokens=new_tokens, context_length=context, say=say
        )
    engine = LocalEngine(policy)
    held_out = _held_out(recipe, policy, inputs, engine, say)
    reference = None
    if recipe.method.needs_reference:
        reference = load_model(recipe, recipe.model.path, trust_remote_code)
        reference.model.requires_grad_(False)
    identity_now = identity(prompts, demonstrations, reference)
    state = None if checkpoint is None else load_state(checkpoint)
    if state is not None:
        check_identity(state["identity"], identity_now)
    torch.manual_seed(recipe.seed)
    world = LocalWorld(
        prompts=prompts,
        demonstrations=demonstrations,
        engine=engine,
        reward=inputs.reward,
        sampling=Sampling(
            new_tokens, Truncation(recipe.rollout.temperature), recipe.rollout.stop, recipe.rollout.max_sequences
        ),
        max_reward_failures=recipe.rollout.max_reward_failures,
        seed=recipe.seed,
    )
    folder = RunFolder(recipe.run)
    sinks = [*loggers, *_asked_loggers(recipe, folder, None if state is None else state["step"])]
    try:
        yield Trainer(
            recipe,
            folder,
            policy=policy,
            reference=reference,
            engine=engine,
            world=world,
            held_out=held_out,
            loggers=sinks,
            identity=identity_now,
        )
    finally:
        for logger in sinks:
            logger.close()


def _held_out(
    recipe: Recipe, policy: Policy, inputs: Inputs, engine: Engine, say: Say
) -> Callable[[], Evaluation] | None:
    """The measurement on held-out prompts, where the recipe wants it."""
    if inputs.held_out is None:
        return None
    assert inputs.reward is not None
    settings, rollout = recipe.evaluation, recipe.rollout
    prompts = prompts_of(
        inputs.held_out,
        policy.tokenizer,
        recipe.data,
        max_new_tokens=rollout.max_new_tokens,
        context_length=policy.context_length,
        say=say,
    )
    truncation = Truncation(settings.temperature, settings.top_k, settings.top_p, settings.min_p)
    return partial(
        evaluate,
        engine,
        prompts[: settings.prompts],
        inputs.reward,
        n=settings.n,
        ks=settings.k,
        sampling=Sampling(rollout.max_new_tokens, truncation, rollout.stop, rollout.max_sequences),
        seed=recipe.seed,
        threshold=settings.threshold,
        max_reward_failures=rollout.max_reward_failures,
    )


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
