"""From a recipe to a finished run: everything is checked before anything is written, then the trainer goes."""

from __future__ import annotations

import hashlib
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import torch

from sharpen.config import IN_MEMORY, EvaluationSettings, Recipe
from sharpen.data.demonstrations import load_demonstrations
from sharpen.data.prompts import load_prompts
from sharpen.data.rows import Rows, read_rows
from sharpen.data.tasks import Task, resolve_task
from sharpen.errors import CheckpointError, DataError, ModelError, RecipeError
from sharpen.evaluation.runner import Evaluation, evaluate
from sharpen.models.policy import Policy, load_policy
from sharpen.rewards.combine import WeightedSum
from sharpen.rewards.registry import resolve_reward
from sharpen.rewards.reward import Reward
from sharpen.rewards.task import TaskReward
from sharpen.rollout.engine import Sampling
from sharpen.rollout.local import LocalEngine
from sharpen.rollout.sampling import Truncation
from sharpen.training.checkpoint import checkpoints, load_state, sound_checkpoints
from sharpen.training.loggers import MetricLogger, TensorBoardLogger, TrackioLogger, WandbLogger
from sharpen.training.run_folder import RunFolder, read_metrics
from sharpen.training.trainer import Trainer
from sharpen.training.world import LocalWorld
from sharpen.types import Group, Prompt

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Given:
    """Python objects that take the place of what a recipe names: rows and a reward."""

    train: Any = None
    held_out: Any = None
    reward: Any = None


@dataclass(frozen=True, slots=True)
class Run:
    """A run that has ended. ``finished`` is False where it was asked to stop before its last step."""

    path: Path
    model: Path
    finished: bool

    def metrics(self) -> list[dict[str, float]]:
        """The rows of ``metrics.jsonl``."""
        return read_metrics(self.path)


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What can be read and checked before the model is loaded."""

    rows: Rows
    held_out_rows: Rows | None
    reward: Reward | None


def start(
    recipe: Recipe,
    given: Given = Given(),
    *,
    loggers: Sequence[MetricLogger] = (),
    say: Say = lambda _: None,
    trust_remote_code: bool = False,
) -> Run:
    """Do a run from its beginning. ``trust_remote_code`` lets the model's folder bring code that is then run.

    Raises:
        SharpenError: something cannot be used; said before the first step where it can be known, with nothing
            written yet.
    """
    RunFolder.refuse_existing(recipe.run)
    inputs = _read_inputs(recipe, given)
    policy = _load(recipe, recipe.model.path, trust_remote_code)
    with _trainer(recipe, policy, inputs, loggers, say, trust_remote_code, resumed=None) as trainer:
        trainer.folder.initialise(recipe)
        return _go(trainer)


def resume(
    path: Path,
    given: Given = Given(),
    *,
    loggers: Sequence[MetricLogger] = (),
    say: Say = lambda _: None,
    trust_remote_code: bool = False,
) -> Run:
    """Go on with a run from its latest sound checkpoint, or from the beginning where it has none.

    Ends with the weights and metrics of a run that was never stopped, timings aside (same machine, same threads).
    """
    folder, recipe = RunFolder.open(path)
    recipe = recipe.model_copy(update={"run": path})
    checkpoint = None
    for candidate, problem in sound_checkpoints(folder.checkpoints):
        if problem is None:
            checkpoint = candidate
            break
        say(f"passed over a checkpoint: {problem}")
    if checkpoint is None and checkpoints(folder.checkpoints):
        raise CheckpointError(f"{folder.checkpoints}: no checkpoint is sound; remove the run to start it anew")
    if checkpoint is not None and load_state(checkpoint)["step"] >= recipe.training.steps:
        say(f"{path} is finished: {recipe.training.steps} steps are done")
        return Run(path, checkpoint, finished=True)
    say(f"going on from {checkpoint}" if checkpoint else "no checkpoint yet: starting from the beginning")
    inputs = _read_inputs(recipe, given)
    policy = _load(recipe, str(checkpoint or recipe.model.path), trust_remote_code)
    with _trainer(recipe, policy, inputs, loggers, say, trust_remote_code, resumed=checkpoint) as trainer:
        if checkpoint is not None:
            trainer.load(checkpoint)
        folder.cut_back(trainer.step if checkpoint else -1)
        return _go(trainer)


def measure(
    policy: Policy,
    rows: Rows,
    reward: Reward,
    settings: EvaluationSettings,
    *,
    max_new_tokens: int,
    stop: Sequence[str] = (),
    seed: int = 0,
    **chat: Any,
) -> Evaluation:
    """Measure a model on the first ``settings.prompts`` of the rows; ``chat`` as in `load_prompts`."""
    prompts = load_prompts(
        rows,
        policy.tokenizer,
        max_new_tokens=max_new_tokens,
        context_length=policy.context_length,
        **chat,
    ).items
    engine = LocalEngine(policy)
    return _measurement(engine, prompts, reward, settings, max_new_tokens, tuple(stop), seed)()


def task_reward(task: Task, spec: Any) -> Reward:
    """The task's own verifier, or what ``spec`` says, where the name ``task`` stands for that verifier."""
    if spec is None or spec == "task":
        return TaskReward(task)
    weighted = []
    for item in [spec] if isinstance(spec, (str, dict)) or callable(spec) else spec:
        settings = dict(item) if isinstance(item, dict) else {"name": item}
        if settings["name"] != "task":
            weight = float(settings.pop("weight", 1.0))
            plain = settings if isinstance(item, dict) else item
            weighted.append((resolve_reward(plain), weight))
        else:
            weighted.append((TaskReward(task), float(settings.get("weight", 1.0))))
    return weighted[0][0] if len(weighted) == 1 and weighted[0][1] == 1.0 else WeightedSum(weighted)


def _read_inputs(recipe: Recipe, given: Given) -> _Inputs:
    data, reads = recipe.data, recipe.method.source().reads
    task = resolve_task(data.task) if data.task is not None else None
    if task is None:
        rows = read_rows(_given(given.train, data.train, "data.train"))
        held_out = None
        if data.held_out is not None:
            held_out = read_rows(_given(given.held_out, data.held_out, "data.held_out"))
        spec = _given(given.reward, recipe.reward, "reward") if recipe.reward is not None else None
        reward = resolve_reward(spec) if spec is not None else None
    else:
        demonstrations = task.demonstrations() if reads == "demonstrations" else None
        if reads == "demonstrations" and demonstrations is None:
            raise DataError(f"task {task.name} has no demonstrations for method {recipe.method.name}")
        rows = demonstrations or task.train_rows()
        held_out = task.held_out_rows()
        reward = task_reward(task, _given(given.reward, recipe.reward, "reward"))
    if not recipe.evaluation.every:
        held_out = None
    if reward is not None:
        if recipe.method.needs_reward:
            reward.check_columns(rows.columns, rows.name)
        if held_out is not None:
            reward.check_columns(held_out.columns, held_out.name)
    if held_out is not None and reward is None:
        raise RecipeError("evaluation.every needs a reward that says which held-out completions are right")
    return _Inputs(rows, held_out, reward)


def _given(thing: Any, named: Any, what: str) -> Any:
    if thing is None and named == IN_MEMORY:
        raise RecipeError(f"`{what}` of this run was given in Python; resume it there, with the same object")
    return named if thing is None else thing


def _load(recipe: Recipe, path: str, trust_remote_code: bool) -> Policy:
    model = recipe.model
    return load_policy(
        path,
        compute_dtype=model.compute_dtype,
        device=model.device,
        gradient_checkpointing=model.gradient_checkpointing,
        trust_remote_code=trust_remote_code,
    )


@contextmanager
def _trainer(
    recipe: Recipe,
    policy: Policy,
    inputs: _Inputs,
    loggers: Sequence[MetricLogger],
    say: Say,
    trust_remote_code: bool,
    *,
    resumed: Path | None,
) -> Iterator[Trainer]:
    """Everything that a run needs, put together, and what it holds open closed again."""
    data = recipe.data
    chat = {
        "chat": data.chat,
        "system": data.system,
        "chat_template_kwargs": data.chat_template_kwargs,
        "overlong": data.overlong,
    }
    tokens, tokenizer, context = recipe.rollout.max_new_tokens, policy.tokenizer, policy.context_length
    prompts: tuple[Prompt, ...] = ()
    demonstrations: tuple[Group, ...] = ()
    if recipe.method.source().reads == "demonstrations":
        loaded = load_demonstrations(inputs.rows, tokenizer, context_length=context, **chat)
        demonstrations, dropped = loaded.items, loaded.dropped
    else:
        loaded_prompts = load_prompts(inputs.rows, tokenizer, max_new_tokens=tokens, context_length=context, **chat)
        prompts, dropped = loaded_prompts.items, loaded_prompts.dropped
    if dropped:
        say(f"{inputs.rows.name}: left out {dropped} of {len(inputs.rows)} rows, too long for the context")

    engine = LocalEngine(policy)
    held_out = None
    if inputs.held_out_rows is not None:
        assert inputs.reward is not None
        held_out_prompts = load_prompts(
            inputs.held_out_rows, tokenizer, max_new_tokens=tokens, context_length=context, **chat
        ).items
        held_out = _measurement(
            engine,
            held_out_prompts,
            inputs.reward,
            recipe.evaluation,
            tokens,
            recipe.rollout.stop,
            recipe.seed,
            recipe.rollout.max_sequences,
        )
    reference = None
    identity: dict[str, Any] = {"data": _data_identity(prompts, demonstrations)}
    if recipe.method.needs_reference:
        reference = _load(recipe, recipe.model.path, trust_remote_code)
        reference.model.requires_grad_(False)
        identity["reference"] = _weights_identity(reference)
    if resumed is not None:
        _check_identity(load_state(resumed)["identity"], identity)
    torch.manual_seed(recipe.seed)
    sinks = [*loggers, *_loggers(recipe, load_state(resumed)["step"] if resumed else None)]
    world = LocalWorld(
        prompts=prompts,
        demonstrations=demonstrations,
        engine=engine,
        reward=inputs.reward,
        sampling=Sampling(
            tokens, Truncation(recipe.rollout.temperature), recipe.rollout.stop, recipe.rollout.max_sequences
        ),
        max_reward_failures=recipe.rollout.max_reward_failures,
        seed=recipe.seed,
    )
    try:
        yield Trainer(
            recipe,
            RunFolder(recipe.run),
            policy=policy,
            reference=reference,
            engine=engine,
            world=world,
            held_out=held_out,
            loggers=sinks,
            identity=identity,
        )
    finally:
        for logger in sinks:
            logger.close()


def _measurement(
    engine: LocalEngine,
    prompts: Sequence[Prompt],
    reward: Reward,
    settings: EvaluationSettings,
    max_new_tokens: int,
    stop: tuple[str, ...],
    seed: int,
    max_sequences: int = 512,
) -> Callable[[], Evaluation]:
    truncation = Truncation(settings.temperature, settings.top_k, settings.top_p, settings.min_p)
    return partial(
        evaluate,
        engine,
        prompts[: settings.prompts],
        reward,
        n=settings.n,
        ks=settings.k,
        sampling=Sampling(max_new_tokens, truncation, stop, max_sequences),
        seed=seed,
        threshold=settings.threshold,
    )


def _loggers(recipe: Recipe, step: int | None) -> list[MetricLogger]:
    log, loggers = recipe.log, list[MetricLogger]()
    config = recipe.model_dump(mode="json")
    if log.tensorboard:
        purge = None if step is None else step + 1
        loggers.append(TensorBoardLogger(recipe.run / "tensorboard", purge_step=purge))
    if log.wandb is not None:
        loggers.append(WandbLogger(log.wandb, recipe.run.name, config))
    if log.trackio is not None:
        loggers.append(TrackioLogger(log.trackio, recipe.run.name, config, resume=step is not None))
    return loggers


def _go(trainer: Trainer) -> Run:
    with _stop_on_interrupt(trainer):
        trainer.run()
    finished = trainer.step >= trainer.recipe.training.steps
    return Run(trainer.folder.path, checkpoints(trainer.folder.checkpoints)[-1], finished)


@contextmanager
def _stop_on_interrupt(trainer: Trainer) -> Iterator[None]:
    """The first Ctrl-C ends the run after the present step, with a checkpoint; the second ends it at once."""

    def request(signum: int, frame: FrameType | None) -> None:
        if trainer.stop_requested:
            raise KeyboardInterrupt
        trainer.stop_requested = True

    try:
        before = signal.signal(signal.SIGINT, request)
    except ValueError:
        # Only the main thread may handle signals; elsewhere Ctrl-C is the caller's own.
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _data_identity(prompts: Sequence[Prompt], demonstrations: Sequence[Group]) -> str:
    digest = hashlib.sha256()
    for ids in (
        *(p.token_ids for p in prompts),
        *(g.prompt.token_ids + c.token_ids for g in demonstrations for c in g.completions),
    ):
        digest.update(np.asarray((len(ids), *ids), dtype=np.int64).tobytes())
    return digest.hexdigest()


def _weights_identity(policy: Policy) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(policy.model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _check_identity(saved: dict[str, Any], now: dict[str, Any]) -> None:
    if saved["data"] != now["data"]:
        raise DataError("the training data is not what this run was started with; a resumed run needs the same")
    if saved.get("reference") != now.get("reference"):
        raise ModelError("the reference model is not the one that this run was started with")
