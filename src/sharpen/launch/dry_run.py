"""What a run would do: everything that is known before its first step. Nothing is trained, nothing is written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

from sharpen.data.chat.dates import date_written, today
from sharpen.launch.build import built_trainer
from sharpen.launch.chat_settings import recorded
from sharpen.launch.checks import check_before_writing, check_folder, check_space
from sharpen.launch.first_batch import FirstBatch, first_batch
from sharpen.launch.inputs import HeldOut, Inputs, read_inputs
from sharpen.launch.memory import memory_numbers, of_length
from sharpen.launch.progress import Progress
from sharpen.launch.resuming import go_on, of_recipe, refuse_impossible
from sharpen.launch.source_rows import Say
from sharpen.methods import UnifiedView
from sharpen.recipe.compare import changed_settings, flattened
from sharpen.recipe.loading import load_recipe
from sharpen.recipe.schema import Recipe
from sharpen.rollout.local.engine import LocalEngine
from sharpen.runs.folder import RunFolder
from sharpen.runs.lock import lock_without_trace
from sharpen.runs.lookup import not_of_the_run
from sharpen.system.memory import Memory, cpu_memory
from sharpen.training.memory import ExpectedMemory, expected_memory
from sharpen.training.trainer import Trainer
from sharpen.types import Group


@dataclass(frozen=True, slots=True)
class Lengths:
    """How many texts there are, and their lengths in tokens."""

    count: int
    least: int
    median: float
    most: int

    @classmethod
    def of(cls, lengths: Sequence[int]) -> Lengths | None:
        if not lengths:
            return None
        return cls(len(lengths), min(lengths), median(lengths), max(lengths))


@dataclass(frozen=True, slots=True)
class Data:
    """What is trained on: the number of rows, and the prompts and completions made of them.

    ``completions`` is None where the policy writes them.
    """

    name: str
    rows: int
    prompts: Lengths | None
    completions: Lengths | None


@dataclass(frozen=True, slots=True)
class Work:
    """What the whole run does.

    ``completions_per_step`` counts those that a step is trained on before any is left out; ``sampled_first`` those that
    are drawn once, before the first step. ``evaluations`` are measurements, of at most ``held_out`` rows with
    ``answers_each`` completions of the policy for each, 0 where the rows hold them.
    """

    steps: int
    prompts_per_step: int
    completions_per_step: int
    updates: int
    sampled_first: int
    evaluations: int
    held_out: int
    answers_each: int


@dataclass(frozen=True, slots=True)
class DryRun:
    """``settings`` are those that differ from their defaults, ``chosen`` those that the machine or the model decides.

    ``machine`` is the memory of the device that trains, None where it cannot be told. ``step`` counts the steps that
    are done already, and ``first`` is the batch of the next one.
    """

    recipe: Recipe
    settings: Mapping[str, Any]
    chosen: Mapping[str, Any]
    method: UnifiedView
    method_settings: Mapping[str, Any]
    coefficients: Mapping[str, float]
    data: tuple[Data, ...]
    work: Work
    memory: ExpectedMemory
    machine: Memory | None
    device: str
    writes: Mapping[str, Path]
    checkpoint_bytes: int
    step: int
    first: FirstBatch


def dry_run(recipe: Recipe, *, say: Say, trust_remote_code: bool = False) -> DryRun:
    """Put a run together as its start would, and describe it instead of training.

    Raises:
        SharpenError: what the start would raise before the first step.
    """
    check_folder(recipe.run)
    with lock_without_trace(recipe.run, say) as locked:
        RunFolder.refuse_existing(recipe.run, locked=locked)
    return _dry_run(recipe, None, say, trust_remote_code)


def dry_resume(path: Path, *, say: Say, trust_remote_code: bool = False, accept_changes: bool = False) -> DryRun | None:
    """Describe the run in this folder as it would go on from its latest sound checkpoint. ``accept_changes`` is as in
    `sharpen.launch.run.resume`; nothing is recorded.

    None if it is finished, which ``say`` is told.

    Raises:
        SharpenError: what resuming it would raise before the next step.
    """
    folder = RunFolder.open(path)
    recipe = load_recipe(folder.recipe).model_copy(update={"run": path})
    with lock_without_trace(path, say):
        progress = Progress.of(folder, recipe.training.steps)
    for other in progress.unlisted:
        say(not_of_the_run(other))
    for problem in progress.damaged.values():
        say(f"would skip a checkpoint: {problem}")
    progress.refuse_damaged()
    if progress.checkpoint is not None and progress.state is not None:
        refuse_impossible(path, recipe, progress.state, progress.checkpoint)
    if progress.finished:
        say(f"{path} is finished: {recipe.training.steps} steps are done")
        return None
    return _dry_run(recipe, progress.checkpoint, say, trust_remote_code, accept_changes)


def _dry_run(
    recipe: Recipe, checkpoint: Path | None, say: Say, trust_remote_code: bool, accept_changes: bool = False
) -> DryRun:
    inputs = read_inputs(recipe)
    for note in inputs.notes:
        say(note)
    check_before_writing(recipe, inputs)
    day = recipe.data.date or today()
    with (
        date_written(day),
        built_trainer(
            recipe, inputs, loggers=(), say=say, trust_remote_code=trust_remote_code, checkpoint=checkpoint
        ) as trainer,
    ):
        recorded(recipe, trainer.model.tokenizer, inputs.reward, day)
        check_space(recipe.run, trainer.learner.checkpoint_bytes())
        trainer.fingerprint |= of_recipe(recipe)
        go_on(trainer, recipe.run, checkpoint, accept_changes=accept_changes, say=say)
        return _described(recipe, inputs, trainer)


def _described(recipe: Recipe, inputs: Inputs, trainer: Trainer) -> DryRun:
    first = first_batch(trainer)
    device = trainer.model.device
    return DryRun(
        recipe=recipe,
        settings=changed_settings(recipe),
        chosen=_chosen(recipe, trainer),
        method=recipe.method.unified_view,
        method_settings={
            name: value for name, value in flattened(recipe.method.model_dump(mode="json")) if name != "name"
        },
        coefficients={name: c.initial for name, c in recipe.method.coefficients().items()},
        data=tuple(_data(inputs, trainer)),
        work=_work(recipe, inputs, first),
        memory=_memory(recipe, inputs, trainer, first),
        machine=cpu_memory() if device.type == "cpu" else _gpu_memory(device),
        device=str(device),
        writes=_writes(recipe, inputs),
        checkpoint_bytes=trainer.learner.checkpoint_bytes(),
        step=trainer.step,
        first=first,
    )


def _chosen(recipe: Recipe, trainer: Trainer) -> dict[str, Any]:
    """What the recipe leaves to the machine, the model or the data."""
    model, training = trainer.model, recipe.training
    chosen: dict[str, Any] = {}
    if recipe.model.device != str(model.device):
        chosen["model.device"] = str(model.device)
    if recipe.model.compute_dtype != model.compute_dtype:
        chosen["model.compute_dtype"] = model.compute_dtype
    if training.tokens_per_microbatch is None:
        chosen["training.tokens_per_microbatch"] = trainer.learner.annotator.limits.tokens_per_microbatch
    return chosen


def _data(inputs: Inputs, trainer: Trainer) -> Iterator[Data]:
    parts = [(part, trainer.collector) for part in inputs.train]
    if inputs.mixed is not None and trainer.mixed_collector is not None:
        parts.append((inputs.mixed, trainer.mixed_collector))
    for part, collector in parts:
        groups = [group for group in collector.groups_at_hand() if group.prompt.source == part.source]
        prompts = [prompt for prompt in collector.prompts_at_hand() if prompt.source == part.source]
        prompts = prompts or [group.prompt for group in groups]
        yield Data(
            part.rows.name,
            len(part.rows),
            Lengths.of([len(prompt.token_ids) for prompt in prompts]),
            Lengths.of([len(t.token_ids) for group in groups for t in group.trajectories]),
        )


def _work(recipe: Recipe, inputs: Inputs, first: FirstBatch) -> Work:
    training, evaluation, held_out = recipe.training, recipe.evaluation, inputs.held_out
    passes, minibatches = recipe.method.passes_and_minibatches
    drawn = len(first.groups) * first.group_size
    given = sum(len(group.trajectories) for group in first.groups)
    evaluations = 0
    if held_out is not None:
        evaluations = len({0, *range(0, training.steps, evaluation.every), training.steps})
    return Work(
        steps=training.steps,
        prompts_per_step=training.prompts_per_step,
        completions_per_step=training.prompts_per_step if first.before_training else drawn or given,
        updates=training.steps * passes * minibatches,
        sampled_first=drawn if first.before_training else 0,
        evaluations=evaluations,
        held_out=_measured(held_out, evaluation.prompts),
        answers_each=evaluation.n if _answers(held_out) else 0,
    )


def _measured(held_out: HeldOut | None, at_most: int) -> int:
    """The rows that are measured, ``at_most`` of each source."""
    return 0 if held_out is None else sum(min(at_most, len(part.rows)) for part in held_out.parts)


def _answers(held_out: HeldOut | None) -> bool:
    return held_out is not None and held_out.reads == "prompts"


def _memory(recipe: Recipe, inputs: Inputs, trainer: Trainer, first: FirstBatch) -> ExpectedMemory:
    """For the longest prompts and completions that a step may have."""
    collector, limit, count = trainer.collector, recipe.rollout.max_new_tokens, recipe.training.prompts_per_step
    contexts = sorted(len(prompt.token_ids) for prompt in collector.prompts_at_hand())
    blocks: list[tuple[list[int], int]] = []
    if first.group_size:
        blocks.append((contexts if first.before_training else contexts[-count:], first.group_size))
        groups = of_length(contexts[-count:], 1 if first.before_training else first.group_size, limit)
    else:
        groups = sorted(collector.groups_at_hand(), key=_tokens)[-count:]
    if _answers(inputs.held_out) and inputs.held_out is not None:
        longest = max(len(group.prompt.token_ids) for group in groups)
        measured = _measured(inputs.held_out, recipe.evaluation.prompts)
        blocks.append(([longest] * measured, recipe.evaluation.n))
    rollout = None
    if isinstance(trainer.engine, LocalEngine) and blocks:
        rollout = max((trainer.engine.memory_for(*block, limit) for block in blocks), key=lambda m: m.kv_bytes)
    mixed: Sequence[Group] = ()
    if trainer.mixed_collector is not None:
        mixed = sorted(trainer.mixed_collector.groups_at_hand(), key=_tokens)[-len(first.mixed) :]
    return expected_memory(memory_numbers(trainer, inputs.reward, rollout, groups, mixed))


def _tokens(group: Group) -> int:
    later = [sample.prefix_ids for t in group.trajectories for sample in t.samples[1:]]
    return len(group.prompt.token_ids) + sum(len(t.token_ids) for t in group.trajectories) + sum(map(len, later))


def _gpu_memory(device: torch.device) -> Memory:
    free, total = torch.cuda.mem_get_info(device)
    return Memory(total, free)


def _writes(recipe: Recipe, inputs: Inputs) -> dict[str, Path]:
    folder = RunFolder(recipe.run)
    places = {"recipe": folder.recipe, "metrics": folder.metrics, "checkpoints": folder.checkpoints}
    if recipe.log.samples_every and recipe.method.source().reads == "prompts":
        places["samples"] = folder.samples
    if recipe.log.samples_every and inputs.held_out is not None and inputs.held_out.reads == "prompts":
        places["held-out answers"] = folder.held_out
    return places
