"""One optimizer step: weights over the whole step, then micro-batches, then the optimizer."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sharpen.errors import NonFiniteError
from sharpen.methods import LossTerms, Method, Objective
from sharpen.models.model import Model
from sharpen.models.packing.microbatches import plan_microbatches
from sharpen.models.packing.pack import PackedRow
from sharpen.training.metrics import TokenStats
from sharpen.types import Batch, Need, Outputs


@dataclass(frozen=True, slots=True)
class MicrobatchLimits:
    """How a step is cut into micro-batches. None of this changes a gradient."""

    tokens_per_microbatch: int
    shared_prompt: bool


@dataclass(frozen=True, slots=True)
class Updated:
    """What one optimizer step did. ``applied`` is False where nothing had a gradient and nothing was changed."""

    loss: float
    grad_norm: float
    applied: bool
    tokens: int


def with_weights(method: Method, batch: Batch) -> Batch:
    """The batch of a whole optimizer step with the weight of each of its terms."""
    return replace(batch, weights=method.weights(batch))


def accumulate_gradient(
    model: Model,
    objective: Objective,
    batch: Batch,
    temperature: float,
    limits: MicrobatchLimits,
    stats: TokenStats | None = None,
    reference: Model | None = None,
) -> tuple[float, int]:
    """Add the gradient of the step's loss to the parameters; returns the loss and the number of tokens computed.

    ``loss = Σ weight × term`` over the step. The weights are made from the whole step (`with_weights`); this only sums.
    Sequences that can have no gradient are left out of the computation, not of the weights.
    """
    # Read at the end: a device goes on while the next micro-batch is made ready.
    losses: list[Tensor] = []
    tokens = 0
    for part, outputs, terms, computed in each_part(model, objective, batch, temperature, limits, reference):
        assert part.weights is not None
        total = (part.weights * terms.loss).sum()
        total.backward()
        losses.append(total.detach())
        tokens += computed
        if stats is not None:
            stats.add(part, outputs, terms)
    return (torch.stack(losses).double().sum().item() if losses else 0.0), tokens


def each_part(
    model: Model,
    objective: Objective,
    batch: Batch,
    temperature: float,
    limits: MicrobatchLimits,
    reference: Model | None = None,
) -> Iterator[tuple[Batch, Outputs, LossTerms, int]]:
    """The micro-batches of a step, what the model says of each, the terms of its loss, and its number of tokens."""
    batch = taught(objective, batch)
    for rows, index_B in _microbatches(model, batch, limits, objective.atom):
        # All that goes to the device does so first: what comes later would wait there for the forward pass.
        part, on_device_B = batch.select(index_B).to(model.device), index_B.to(model.device)
        outputs = _selected(model.outputs(batch, rows, temperature, objective.needs, reference), on_device_B)
        if "old_logprobs" in objective.annotations and part.old_logprobs_BT is None:
            # One update per rollout: the policy still is the one that the rollout began with.
            assert outputs.logprobs_BT is not None
            part = replace(part, old_logprobs_BT=outputs.logprobs_BT.detach())
        yield part, outputs, objective.terms(outputs, part), sum(row.tokens for row in rows)


def taught(objective: Objective, batch: Batch) -> Batch:
    """The sequences of a batch that can have a gradient."""
    if objective.without_advantage:
        return batch
    assert batch.advantages_BT is not None
    return batch.select(batch.advantages_BT.ne(0).any(dim=1).nonzero().squeeze(1))


def optimizer_step(
    model: Model,
    optimizer: torch.optim.Optimizer,
    objective: Objective,
    batch: Batch,
    *,
    learning_rate: float,
    max_grad_norm: float | None,
    temperature: float,
    limits: MicrobatchLimits,
    stats: TokenStats | None = None,
    reference: Model | None = None,
) -> Updated:
    """Accumulate, clip and apply. A step without any gradient is a no-op, optimizer state included.

    Raises `NonFiniteError` where the loss or the gradient is NaN or infinite; weights and optimizer state are then as
    they were.
    """
    optimizer.zero_grad(set_to_none=True)
    loss, tokens = accumulate_gradient(model, objective, batch, temperature, limits, stats, reference)
    if tokens == 0:
        return Updated(0.0, 0.0, applied=False, tokens=0)
    trained = [p for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
    if not (norm.isfinite() and math.isfinite(loss)):
        raise NonFiniteError(
            f"the {objective.model}'s gradient norm is {norm.item():g}, its loss {loss:g}. Lower "
            "optimizer.learning_rate or optimizer.max_grad_norm, or look for rewards of enormous size"
        )
    if max_grad_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(trained, max_grad_norm, norm)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    model.version += 1
    return Updated(loss, norm.item(), applied=True, tokens=tokens)


@torch.no_grad()
def all_outputs(
    model: Model, batch: Batch, need: Need, temperature: float, limits: MicrobatchLimits, reference: Model | None = None
) -> Tensor:
    """One of a model's outputs at every trained token of the batch, without gradient, [B, T], on the CPU."""
    total_BT = torch.zeros(batch.tokens_BT.shape)
    for rows, _ in _microbatches(model, batch, limits, "sequence"):
        outputs = model.outputs(batch, rows, temperature, frozenset({need}), reference)
        part_BT = {
            "logprobs": outputs.logprobs_BT,
            "entropy": outputs.entropy_BT,
            "exact_kl": outputs.kl_BT,
            "values": outputs.values_BT,
            "scores": outputs.scores_BT,
        }[need]
        assert part_BT is not None
        total_BT += part_BT.cpu()
    return total_BT


def _microbatches(
    model: Model, batch: Batch, limits: MicrobatchLimits, atom: str
) -> Iterator[tuple[list[PackedRow], Tensor]]:
    """The rows of each micro-batch, with the sequences that they hold."""
    if not batch.mask_BT.any():
        return
    for rows in plan_microbatches(
        batch,
        tokens_per_microbatch=limits.tokens_per_microbatch,
        shared=limits.shared_prompt and model.plain,
        cost=model.cost,
        padded=not model.plain,
        atom="group" if atom == "group" else "sequence",
    ):
        yield rows, torch.tensor([b for row in rows for b in row.sequences])


def _selected(outputs: Outputs, index_B: Tensor) -> Outputs:
    def of(tensor_BT: Tensor | None) -> Tensor | None:
        return None if tensor_BT is None else tensor_BT[index_B]

    return Outputs(
        of(outputs.logprobs_BT),
        of(outputs.entropy_BT),
        of(outputs.kl_BT),
        of(outputs.values_BT),
        of(outputs.scores_BT),
    )
