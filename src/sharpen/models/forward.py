"""Runs a model over a batch, one micro-batch at a time."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sharpen.batch import Atom, Batch, Need
from sharpen.models.model import Model
from sharpen.models.packing.microbatches import Planner
from sharpen.models.packing.plan import Plan


@dataclass(frozen=True, slots=True)
class MicrobatchLimits:
    """How a batch is split into micro-batches, and the plans made so far. Never changes a gradient."""

    tokens_per_microbatch: int
    shared_prompt: bool
    planner: Planner = field(default_factory=Planner, compare=False, repr=False)


def microbatches(model: Model, batch: Batch, limits: MicrobatchLimits, atom: Atom = "token") -> Plan:
    """The plan of a pass over the batch; it has no micro-batch if the batch has no trained token."""
    return limits.planner.plan(
        batch,
        tokens_per_microbatch=limits.tokens_per_microbatch,
        shared=limits.shared_prompt and model.root.shares_prefixes,
        cost=model.cost,
        padded=not model.plain,
        atom=atom,
    )


@torch.no_grad()
def all_outputs(
    model: Model,
    batch: Batch,
    need: Need,
    temperature: float,
    limits: MicrobatchLimits,
    reference: Model | None = None,
    share: tuple[int, int] = (0, 1),
) -> Tensor:
    """One of a model's outputs at every trained token of the batch, without gradient, [E, T], on the CPU.

    ``share`` (k, n): only what the k-th of n ranks computes, from 0 on, and 0 elsewhere.
    """
    # One transfer at the end, so that the device never waits between micro-batches.
    total_ET = torch.zeros(batch.tokens_ET.shape, device=model.device)
    plan = microbatches(model, batch, limits)
    for rows in plan.dealt(*share):
        # A rank that has nothing to do computes along with the others.
        output_ET = model.outputs(batch, rows or plan.smallest, temperature, frozenset({need}), reference)[need]
        if rows:
            total_ET += output_ET
    return total_ET.cpu()
