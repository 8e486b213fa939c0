"""A recipe and its inputs → a trainer that is ready to run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch

from sharpen.evaluation.estimators import Estimate
from sharpen.launch.held_out import held_out_measurement
from sharpen.launch.inputs import Inputs, Say, groups_of, prompts_of
from sharpen.launch.models import load_helpers, load_model, load_reference
from sharpen.methods import Role
from sharpen.models.dtype import computes_bfloat16
from sharpen.models.forward import MicrobatchLimits
from sharpen.models.model import Model
from sharpen.models.policy import Policy
from sharpen.recipe.schema import Recipe
from sharpen.rewards.reward import Reward
from sharpen.rewards.scoring import score_step
from sharpen.rollout.collector import LocalCollector, Scoring
from sharpen.rollout.engine import Engine, Sampling
from sharpen.rollout.local.engine import LocalEngine
from sharpen.rollout.sampling import Truncation
from sharpen.runs.checkpoint import load_state
from sharpen.runs.folder import RunFolder
from sharpen.runs.loggers import MetricLogger, TensorBoardLogger, TrackioLogger, WandbLogger
from sharpen.training.annotate import Annotator
from sharpen.training.fingerprint import check_fingerprint, fingerprint
from sharpen.training.microbatch import usual_tokens
from sharpen.training.reference import Reference
from sharpen.training.score_normalisation import ScoreNormalisation, best_of
from sharpen.training.trainer import Trainer
from sharpen.types import Group, Prompt


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
    method, source, rollout = recipe.method, recipe.method.source(), recipe.rollout
    role = method.objectives()[0].model
    main = load_model(recipe, role, recipe.model.path, trust_remote_code, saved=checkpoint)
    if inputs.reward is not None:
        inputs.reward.use_tokenizer(main.tokenizer)
    models: dict[Role, Model] = {
        role: main,
        **load_helpers(recipe, main, inputs.reward, checkpoint, trust_remote_code),
    }
    if isinstance(main, Policy) and "values" in method.objectives()[0].needs and main.value_head is None:
        main.add_value_head()
    if main.compute_dtype == "bfloat16" and not computes_bfloat16(main.device):
        say("model.compute_dtype: this processor has no instructions for bfloat16, float32 is many times faster")
    tokenizer, context = main.tokenizer, main.context_length
    prompts: tuple[Prompt, ...] = ()
    groups: tuple[Group, ...] = ()
    if source.reads == "prompts":
        prompts = prompts_of(
            inputs.rows,
            tokenizer,
            recipe.data,
            max_new_tokens=rollout.max_new_tokens,
            context_length=context,
            say=say,
        )
    else:
        groups = groups_of(source.reads, inputs.rows, tokenizer, recipe.data, context_length=context, say=say)
    engine = LocalEngine(main) if isinstance(main, Policy) else None
    reference = load_reference(recipe, models, checkpoint, trust_remote_code)
    longest_prompt = max(len(prompt.token_ids) for prompt in prompts or [group.prompt for group in groups])
    tokens = recipe.training.tokens_per_microbatch or usual_tokens(main, longest_prompt)
    limits = MicrobatchLimits(tokens, recipe.training.shared_prompt)
    # Log-probabilities are those of the distribution that is sampled from; data was sampled by nobody.
    temperature = rollout.temperature if source.on_policy else 1.0
    annotator = Annotator(models, reference, temperature, limits)
    fixed = None if reference is None or reference.moves else reference.policy
    fingerprint_now = fingerprint(prompts, groups, fixed, models)
    state = None if checkpoint is None else load_state(checkpoint)
    if state is not None:
        check_fingerprint(state["fingerprint"], fingerprint_now)
    torch.manual_seed(recipe.seed)
    folder = RunFolder(recipe.run)
    collector = LocalCollector(
        prompts=prompts,
        groups=groups,
        engine=engine,
        store=folder.write_kept,
        score=_scoring(inputs.reward, rollout.max_reward_failures),
        sampling=Sampling(rollout.max_new_tokens, Truncation(rollout.temperature), rollout.stop, rollout.max_sequences),
        seed=recipe.seed,
    )
    held_out = _held_out(recipe, inputs, main, engine, reference, say)
    sinks = [*loggers, *_asked_loggers(recipe, folder, None if state is None else state["step"])]
    try:
        yield Trainer(
            method,
            folder,
            models=models,
            annotator=annotator,
            engine=engine,
            collector=collector,
            held_out=held_out,
            score_normalisation=_score_normalisation(recipe, inputs, main, groups, limits, say),
            loggers=sinks,
            say=say,
            fingerprint=fingerprint_now,
            training=recipe.training,
            optimizer=recipe.optimizer,
            checkpoint=recipe.checkpoint,
            completion_limit=rollout.max_new_tokens,
            evaluate_every=recipe.evaluation.every,
            samples_every=recipe.log.samples_every,
        )
    finally:
        for logger in sinks:
            logger.close()


def _scoring(reward: Reward | None, max_failure_rate: float) -> Scoring | None:
    return None if reward is None else partial(score_step, reward, max_failure_rate=max_failure_rate)


def _held_out(
    recipe: Recipe, inputs: Inputs, main: Model, engine: Engine | None, reference: Reference | None, say: Say
) -> Callable[[], Mapping[str, Estimate]] | None:
    """The measurement on held-out rows, where the recipe wants it."""
    if inputs.held_out is None:
        return None
    measured = held_out_measurement(recipe, inputs.held_out, main, engine, reference, say)
    return lambda: measured().measures


def _score_normalisation(
    recipe: Recipe, inputs: Inputs, main: Model, ranked: Sequence[Group], limits: MicrobatchLimits, say: Say
) -> ScoreNormalisation | None:
    """On the demonstrations, or on the best of each ranking where there are none."""
    if not recipe.method.normalises_scores:
        return None
    if inputs.demonstrations is None:
        return ScoreNormalisation(best_of(ranked), limits)
    shown = groups_of(
        "demonstrations",
        inputs.demonstrations,
        main.tokenizer,
        recipe.data,
        context_length=main.context_length,
        say=say,
    )
    return ScoreNormalisation(shown, limits)


def _asked_loggers(recipe: Recipe, folder: RunFolder, step: int | None) -> list[MetricLogger]:
    log = recipe.log
    loggers: list[MetricLogger] = []
    config = recipe.model_dump(mode="json")
    if log.tensorboard:
        loggers.append(TensorBoardLogger(folder.path / "tensorboard", purge_step=0 if step is None else step + 1))
    if log.wandb is not None:
        loggers.append(WandbLogger(log.wandb, folder.path.name, config, run_id=folder.logging_id(), folder=folder.path))
    if log.trackio is not None:
        loggers.append(TrackioLogger(log.trackio, folder.path.name, config, resume=step is not None))
    return loggers
