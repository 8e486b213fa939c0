"""The memory that a run is expected to need, from its trainer before the first step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from torch import nn

from sharpen.data.collate import collate
from sharpen.methods import Method, Objective
from sharpen.models.forward import MicrobatchLimits, microbatches
from sharpen.models.logprobs import CHUNK_BYTES, GPU_CHUNK_BYTES
from sharpen.models.model import Model
from sharpen.models.policy import Policy
from sharpen.rewards.combine import unique_names
from sharpen.rewards.models.model_reward import ScorerReward
from sharpen.rewards.reward import Reward
from sharpen.rollout.local.memory import RolloutMemory
from sharpen.training.memory import FLOAT32, HEAP_WASTE, MemoryNumbers, MicrobatchNumbers, ModelNumbers
from sharpen.training.microbatch import activation_bytes
from sharpen.training.trainer import Trainer
from sharpen.types import Group, Prompt, single_turn

LOADING_WASTE = 0.6
"""What loading a model leaves behind on glibc's heap and nothing else can use, as a share of its weights in float32:
every weight is copied to be aligned. Measured."""


def memory_numbers(
    trainer: Trainer,
    reward: Reward | None,
    rollout: RolloutMemory | None,
    groups: Sequence[Group],
    mixed: Sequence[Group] = (),
) -> MemoryNumbers:
    """What `expected_memory` needs, for a step on ``groups`` and, of the second source, ``mixed``."""
    learner = trainer.learner
    limits = learner.annotator.limits
    losses = [(objective, groups) for objective in learner.objectives]
    if learner.second is not None and mixed:
        losses.append((learner.second.objective, mixed))
    passes = [
        largest_microbatch(learner.models[objective.model], objective, _parts_of(learner.method, its), limits)
        for objective, its in losses
    ]
    if mixed:
        passes = [replace(microbatch, only=False) for microbatch in passes]
    heap_waste = HEAP_WASTE if trainer.model.device.type == "cpu" else 0.0
    return MemoryNumbers(_models(trainer, reward), rollout, passes, heap_waste)


def of_length(contexts: Iterable[int], copies: int, completion: int) -> list[Group]:
    """Groups of ``copies`` completions of that length for prompts of these lengths, whose tokens mean nothing."""
    return [
        Group(
            Prompt(str(number), (0,) * context, "", {}),
            tuple(single_turn((0,) * context, (0,) * completion, "") for _ in range(copies)),
        )
        for number, context in enumerate(contexts)
    ]


def largest_microbatch(
    model: Model, objective: Objective, parts: Sequence[Sequence[Group]], limits: MicrobatchLimits
) -> MicrobatchNumbers:
    """The largest micro-batch of an optimizer step on any of ``parts``, as the step itself would cut it."""
    tokens = trained = 0
    only = True
    for groups in parts:
        batch = collate(groups)
        plan = microbatches(model, batch, limits, objective.atom)
        only &= len(plan) == 1
        for rows in plan:
            width = max(row.tokens for row in rows)
            size = sum(row.tokens for row in rows) if model.plain else len(rows) * width
            if size > tokens:
                samples = [b for row in rows for b in row.samples]
                tokens = size
                trained = int(batch.mask_ET[batch.samples.trajectory_B[samples]].sum())
    return MicrobatchNumbers(
        model=objective.model,
        activation_bytes=tokens * activation_bytes(model),
        cast_bytes=_cast_bytes(model),
        only=only,
        **_head_bytes(model, objective, tokens, trained),
    )


def _models(trainer: Trainer, reward: Reward | None) -> dict[str, ModelNumbers]:
    """Every model, a weight that several share counted with the first; one with nothing of its own is left out."""
    annotator = trainer.learner.annotator
    found: dict[str, Model] = {str(role): model for role, model in trainer.learner.models.items()}
    if annotator.reference is not None:
        found["reference"] = annotator.reference.policy
    found |= annotator.frozen
    found |= _scorers(reward)
    counted: set[int] = set()
    numbers: dict[str, ModelNumbers] = {}
    for name, model in found.items():
        own = [p for p in (*model.root.parameters(), *model.root.buffers()) if id(p) not in counted]
        counted |= {id(p) for p in own}
        if not own:
            continue
        stored = sum(p.nbytes for p in own)
        in_float32 = FLOAT32 * sum(p.numel() for p in own)
        numbers[name] = ModelNumbers(
            weight_bytes=stored,
            trained_parameters=sum(p.numel() for p in model.parameters()) if name in trainer.learner.models else 0,
            loaded_bytes=int(LOADING_WASTE * in_float32) + in_float32 - stored,
        )
    return numbers


def _scorers(reward: Reward | None) -> dict[str, Model]:
    """The reward models, however rewards are combined."""
    found = [] if reward is None else [leaf for leaf in reward.leaves() if isinstance(leaf, ScorerReward)]
    names = unique_names([f"reward {leaf.name}" for leaf in found])
    return {name: leaf.scorer for name, leaf in zip(names, found, strict=True)}


def _parts_of(method: Method, groups: Sequence[Group]) -> list[list[Group]]:
    """The groups of each optimizer step of a pass."""
    count = method.passes_and_minibatches[1]
    parts = [list(groups[len(groups) * i // count : len(groups) * (i + 1) // count]) for i in range(count)]
    return [part for part in parts if part]


def _head_bytes(model: Model, objective: Objective, tokens: int, trained: int) -> Mapping[str, int]:
    """The logits of ``trained`` tokens, a chunk at a time where the head is chunked, and the head's gradient."""
    if not isinstance(model, Policy) or not objective.needs & {"logprobs", "entropy", "exact_kl"}:
        return {"logit_bytes": 0, "head_gradient_bytes": 0}
    weight: nn.Parameter = model.model.get_output_embeddings().weight  # type: ignore[operator]
    # A partial sum, and a chunk's share or the gradient of a tied embedding.
    gradient = 2 * FLOAT32 * weight.numel() if weight.requires_grad else 0
    if not model.plain:
        # The logits of all positions, those of the trained ones, and their log-softmax.
        return {
            "logit_bytes": FLOAT32 * len(weight) * (tokens + 2 * trained),
            "head_gradient_bytes": gradient,
        }
    chunk = CHUNK_BYTES if model.device.type == "cpu" else GPU_CHUNK_BYTES
    number = 2 if model.compute_dtype == "bfloat16" else FLOAT32
    of_all = number * len(weight) * trained
    # The first chunk is saved. A further one is computed beside it, and so is the reference's for an exact KL.
    chunks = min(of_all, chunk) + min(max(0, of_all - chunk), chunk)
    return {
        "logit_bytes": chunks * (2 if "exact_kl" in objective.needs else 1),
        "head_gradient_bytes": gradient,
    }


def _cast_bytes(model: Model) -> int:
    """Copies of the matrices that autocast rounds to bfloat16 for a pass, and keeps for the backward pass."""
    if model.compute_dtype != "bfloat16":
        return 0
    weights = {id(m.weight): m.weight for m in model.model.modules() if isinstance(m, nn.Linear)}
    return sum(2 * weight.numel() for weight in weights.values() if weight.element_size() > 2)
