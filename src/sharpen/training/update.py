"""One optimizer step: weight the loss over the whole step, accumulate gradients over micro-batches, update."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from sharpen.errors import NonFiniteError
from sharpen.methods import LossTerms, Method, Objective
from sharpen.models.forward import MicrobatchLimits, microbatches
from sharpen.models.model import Model
from sharpen.types import Batch, Outputs

Observer = Callable[[Batch, Outputs, LossTerms], None]
"""Is shown every micro-batch with the model's outputs and its loss terms."""


@dataclass(frozen=True, slots=True)
class Updated:
    """What one optimizer step did. ``applied`` is False if nothing had a gradient, so that nothing changed.

    ``tokens`` counts the tokens computed, prompts included.
    """

    loss: float
    grad_norm: float
    applied: bool
    tokens: int


def with_weights(method: Method, batch: Batch) -> Batch:
    """The batch of a whole optimizer step, with the weight of each loss term filled in."""
    return replace(batch, weights=method.weights(batch))


def accumulate_gradient(
    model: Model,
    objective: Objective,
    batch: Batch,
    temperature: float,
    limits: MicrobatchLimits,
    observe: Observer | None = None,
    reference: Model | None = None,
) -> tuple[float, int]:
    """Add the gradient of the step's loss to the parameters; returns the loss and the number of tokens computed.

    ``loss = Σ weight × term`` over the step. The weights come from the whole step (`with_weights`); this only sums.
    Sequences that cannot have a gradient are not computed, but they count in the weights.
    """
    # The losses are read at the end, so that the device never waits while the next micro-batch is prepared.
    losses: list[Tensor] = []
    tokens = 0
    for part, outputs, terms, computed in forward_microbatches(model, objective, batch, temperature, limits, reference):
        assert part.weights is not None
        total = (part.weights * terms.loss).sum()
        total.backward()
        losses.append(total.detach())
        tokens += computed
        if observe is not None:
            observe(part, outputs, terms)
    return (torch.stack(losses).double().sum().item() if losses else 0.0), tokens


def forward_microbatches(
    model: Model,
    objective: Objective,
    batch: Batch,
    temperature: float,
    limits: MicrobatchLimits,
    reference: Model | None = None,
) -> Iterator[tuple[Batch, Outputs, LossTerms, int]]:
    """Each micro-batch of a step, with the model's outputs, its loss terms, and the number of tokens computed."""
    batch = with_gradient(objective, batch)
    for rows in microbatches(model, batch, limits, objective.atom):
        index_E = torch.tensor([b for row in rows for b in row.sequences])
        # Copy everything to the device before the forward pass is queued; a later copy would wait for it.
        part, on_device_E = batch.select(index_E).to(model.device), index_E.to(model.device)
        outputs = _selected(model.outputs(batch, rows, temperature, objective.needs, reference), on_device_E)
        if "old_logprobs" in objective.annotations and part.old_logprobs_ET is None:
            # With one update per rollout, the policy is still the one that sampled.
            assert outputs.logprobs_ET is not None
            part = replace(part, old_logprobs_ET=outputs.logprobs_ET.detach())
        yield part, outputs, objective.terms(outputs, part), sum(row.tokens for row in rows)


def with_gradient(objective: Objective, batch: Batch) -> Batch:
    """The sequences that can have a gradient."""
    if objective.without_advantage:
        return batch
    assert batch.advantages_ET is not None
    return batch.select(batch.advantages_ET.ne(0).any(dim=1).nonzero().squeeze(1))


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
    observe: Observer | None = None,
    reference: Model | None = None,
) -> Updated:
    """Accumulate, clip and apply. A step without any gradient changes nothing, not even optimizer state.

    Raises `NonFiniteError` if the loss or the gradient is NaN or infinite, before weights or optimizer state change.
    """
    optimizer.zero_grad(set_to_none=True)
    loss, tokens = accumulate_gradient(model, objective, batch, temperature, limits, observe, reference)
    if tokens == 0:
        return Updated(0.0, 0.0, applied=False, tokens=0)
    trained = [p for p in model.parameters() if p.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
    if not (norm.isfinite() and math.isfinite(loss)):
        raise NonFiniteError(
            f"the {objective.model}'s gradient norm is {norm.item():g}, its loss {loss:g}. Lower "
            "optimizer.learning_rate or optimizer.max_grad_norm, or look for extremely large rewards"
        )
    if max_grad_norm is not None:
        torch.nn.utils.clip_grads_with_norm_(trained, max_grad_norm, norm)
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
    optimizer.step()
    model.version += 1
    return Updated(loss, norm.item(), applied=True, tokens=tokens)


def _selected(outputs: Outputs, index_E: Tensor) -> Outputs:
    def of(tensor_ET: Tensor | None) -> Tensor | None:
        return None if tensor_ET is None else tensor_ET[index_E]

    return Outputs(
        of(outputs.logprobs_ET),
        of(outputs.entropy_ET),
        of(outputs.kl_ET),
        of(outputs.values_ET),
        of(outputs.scores_ET),
    )
