"""The gradient of one optimizer step: the loss is weighted over the whole step and summed over micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sharpen.batch import Batch, Outputs
from sharpen.errors import RecipeError
from sharpen.methods import LossTerms, Method, Objective
from sharpen.models.forward import MicrobatchLimits, all_outputs, microbatches
from sharpen.models.model import Model
from sharpen.models.packing.microbatches import cut_trajectories
from sharpen.models.packing.pack import PackedRow

Observer = Callable[[Batch, Outputs, LossTerms], None]
"""Is shown every micro-batch with the model's outputs and its loss terms."""


@dataclass(frozen=True, slots=True)
class Accumulated:
    """A gradient that was added to the parameters: the loss, and the number of tokens computed, prefixes included.

    ``unscaled`` is the loss before it was scaled.
    """

    loss: Tensor
    unscaled: Tensor
    tokens: int


@dataclass(frozen=True, slots=True)
class Microbatch:
    """A micro-batch with the model's outputs, its loss terms, and the number of tokens that all ranks compute with it.

    ``idle``: it is another rank's, computed along with the others and counted by nobody.
    """

    batch: Batch
    outputs: Outputs
    terms: LossTerms
    tokens: int
    idle: bool = False

    @property
    def loss(self) -> Tensor:
        """Σ weight × term, of an idle rank times 0."""
        loss = (self.batch["weights"] * self.terms.loss).sum()
        return 0.0 * loss if self.idle else loss


def with_weights(method: Method, batch: Batch) -> Batch:
    """The batch of a whole optimizer step, with the weight of each loss term."""
    return batch.with_streams(weights=method.weights(batch))


def accumulate_gradient(
    model: Model,
    objective: Objective,
    batch: Batch,
    temperature: float,
    limits: MicrobatchLimits,
    observe: Observer | None = None,
    reference: Model | None = None,
    scale: float = 1.0,
    share: tuple[int, int] = (0, 1),
    keep_gradients: bool = False,
) -> Accumulated:
    """Add the gradient of ``scale`` times the step's loss to the parameters.

    ``loss = Σ weight × term`` over the step. The weights come from the whole step (`with_weights`); this only sums.
    Trajectories that cannot have a gradient are not computed, but they count in the weights. With a ``share`` (k, n)
    this is the k-th of n ranks, from 0 on, whose gradients add up to that of the step. With ``keep_gradients``, the
    outputs that ``observe`` is shown have the gradient of the loss with respect to them.
    """
    # The losses are read at the end, so that the device never waits while the next micro-batch is prepared.
    losses: list[Tensor] = []
    tokens = 0
    for part in forward_microbatches(model, objective, batch, temperature, limits, reference, share):
        loss = part.loss
        if keep_gradients:
            for output in part.outputs.values():
                if output.requires_grad:
                    output.retain_grad()
        (loss if scale == 1.0 else scale * loss).backward()
        tokens += part.tokens
        if not part.idle:
            losses.append(loss.detach())
        if observe is not None:
            # Every rank has the same figures; of an idle one no token counts.
            counted = part.batch.within(torch.zeros_like(part.batch.mask_ET)) if part.idle else part.batch
            observe(counted, part.outputs, part.terms)
    losses_M = torch.stack(losses) if losses else torch.zeros(0, device=model.device)
    return Accumulated((scale * losses_M).double().sum(), losses_M.double().sum(), tokens)


def forward_microbatches(
    model: Model,
    objective: Objective,
    batch: Batch,
    temperature: float,
    limits: MicrobatchLimits,
    reference: Model | None = None,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Microbatch]:
    """Each micro-batch of a rank's share of a step."""
    batch = with_gradient(objective, batch)
    batch = _with_whole(model, objective, batch, temperature, limits)
    plan = microbatches(model, batch, limits, objective.atom)
    mine, count = share
    shares = [plan.dealt(rank, count) for rank in range(count)]
    for number, dealt in enumerate(shares[mine]):
        rows = dealt or plan.smallest
        index_E, part = _part(batch, rows)
        # Copy everything to the device before the forward pass is queued; a later copy would wait for it.
        part, on_device_E = part.to(model.device), index_E.to(model.device)
        of_all = model.outputs(batch, rows, temperature, objective.needs, reference)
        outputs = Outputs({name: output_ET[on_device_E] for name, output_ET in of_all.items()})
        if "old_logprobs" in objective.streams and "old_logprobs" not in part:
            # With one update per step, the policy is still that of the start of the step.
            part = part.with_streams(old_logprobs=outputs["logprobs"].detach())
        tokens = sum(of_rank.tokens[number] for of_rank in shares)
        yield Microbatch(part, outputs, objective.terms(outputs, part), tokens, idle=not dealt)


def with_gradient(objective: Objective, batch: Batch) -> Batch:
    """The trajectories that can have a gradient."""
    if objective.without_advantage:
        return batch
    return batch.select(batch["advantages"].ne(0).any(dim=1).nonzero().squeeze(1))


def _part(batch: Batch, rows: Sequence[PackedRow]) -> tuple[Tensor, Batch]:
    """The trajectories of the rows' samples, by number and as a batch in which only these samples' tokens count."""
    index_B = torch.tensor([b for row in rows for b in row.samples])
    trajectory_B = batch.samples.trajectory_B[index_B]
    index_E = torch.tensor(list(dict.fromkeys(trajectory_B.tolist())))
    part = batch.select(index_E)
    if len(part.samples) == len(index_B):
        return index_E, part
    width = batch.tokens_ET.shape[1]
    column_T, start_B, end_B = torch.arange(width), batch.samples.start_B, batch.samples.ends(width)
    inside_BT = (column_T >= start_B[index_B, None]) & (column_T < end_B[index_B, None])
    place_E = torch.zeros(len(batch), dtype=torch.long)
    place_E[index_E] = torch.arange(len(index_E))
    inside_ET = (
        torch.zeros(len(index_E), width, dtype=torch.int).index_add(0, place_E[trajectory_B], inside_BT.int()) > 0
    )
    return index_E, part.within(inside_ET)


def _with_whole(
    model: Model, objective: Objective, batch: Batch, temperature: float, limits: MicrobatchLimits
) -> Batch:
    """The batch with what the loss needs of whole trajectories, for those that are cut between micro-batches.

    Raises RecipeError if it needs them whole and does not say what.
    """
    if objective.atom != "trajectory":
        return batch
    index_E = cut_trajectories(batch, limits.tokens_per_microbatch).nonzero().squeeze(1)
    if not len(index_E):
        return batch
    if objective.whole is None:
        raise RecipeError(
            f"a trajectory is too long for a micro-batch of {limits.tokens_per_microbatch} tokens, and its loss needs "
            "all of it: raise training.tokens_per_microbatch, or give the objective what it needs of a whole "
            "trajectory (`whole`)"
        )
    cut = batch.select(index_E)
    now_ET = all_outputs(model, cut, "logprobs", temperature, limits)
    if "old_logprobs" not in cut:
        cut = cut.with_streams(old_logprobs=now_ET)
    found = objective.whole(Outputs(logprobs=now_ET), cut)
    missing_E = torch.full((len(batch),), torch.nan)
    return batch.with_streams(**{name: missing_E.index_copy(0, index_E, of_E.float()) for name, of_E in found.items()})
