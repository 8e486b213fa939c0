"""Runs a model over a batch, one micro-batch at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sharpen.models.model import Model
from sharpen.models.packing.microbatches import Plan, Planner
from sharpen.types import Batch, Need


@dataclass(frozen=True, slots=True)
class MicrobatchLimits:
    """How a batch is split into micro-batches. Never changes a gradient."""

    tokens_per_microbatch: int
    shared_prompt: bool


def microbatches(
    model: Model,
    batch: Batch,
    limits: MicrobatchLimits,
    atom: Literal["sequence", "group"] = "sequence",
    planner: Planner | None = None,
) -> Plan:
    """The rows of each micro-batch; none if the batch has no trained token. A ``planner`` reuses its earlier plans."""
    return (planner or Planner()).plan(
        batch,
        tokens_per_microbatch=limits.tokens_per_microbatch,
        shared=limits.shared_prompt and model.plain,
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
    planner: Planner | None = None,
) -> Tensor:
    """One of a model's outputs at every trained token of the batch, without gradient, [E, T], on the CPU."""
    total_ET = torch.zeros(batch.tokens_ET.shape)
    for rows in microbatches(model, batch, limits, planner=planner):
        outputs = model.outputs(batch, rows, temperature, frozenset({need}), reference)
        part_ET = {
            "logprobs": outputs.logprobs_ET,
            "entropy": outputs.entropy_ET,
            "exact_kl": outputs.kl_ET,
            "values": outputs.values_ET,
            "scores": outputs.scores_ET,
        }[need]
        assert part_ET is not None
        total_ET += part_ET.cpu()
    return total_ET
