"""The streams that sharpen produces, by name. A method may add producers of its own (`Method.producers`).

rollout_logprobs   with which the tokens were drawn; in every batch that was drawn            [E, T]
step_rewards       of each step at its last token, NaN elsewhere; only where steps have rewards  [E, T]
old_logprobs       log π_old: the policy's at the start of the step                           [E, T]
ref_logprobs       log π_ref                                                                  [E, T]
kl                 KL(π_old ‖ π_ref) over the whole vocabulary, in nats                       [E, T]
values             the critic's value before each token                                       [E, T]
final_values       the critic's value after the last token of truncated trajectories, else 0  [E]
advantages, targets, weights   from the method                                                [E, T], weights also [E]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from sharpen.batch import Batch
from sharpen.methods.streams import Producer, StepModels
from sharpen.types import NOT_DRAWN, Group


def _old_logprobs(batch: Batch, groups: Sequence[Group], models: StepModels) -> Mapping[str, Tensor]:
    """Only of trajectories that will have a gradient."""
    index_E = models.needed(batch)
    old_ET = torch.zeros(batch.tokens_ET.shape)
    if len(index_E):
        old_ET[index_E] = models.output("policy", "logprobs", batch.select(index_E))
    return {"old_logprobs": old_ET}


def _kl(batch: Batch, groups: Sequence[Group], models: StepModels) -> Mapping[str, Tensor]:
    return {"kl": models.output("policy", "exact_kl", batch, against="reference")}


def _values(batch: Batch, groups: Sequence[Group], models: StepModels) -> Mapping[str, Tensor]:
    return {"values": models.output("critic", "values", batch)}


def _final_values(batch: Batch, groups: Sequence[Group], models: StepModels) -> Mapping[str, Tensor]:
    """The values before each token come from the same pass."""
    T = batch.tokens_ET.shape[1]
    continued_E = batch.truncated_E & batch.mask_ET.any(dim=1)
    # The value after a trajectory is the value before one more token, whatever that token is.
    next_ET = (torch.arange(T + 1) == batch.lengths_E[:, None]) & continued_E[:, None]
    longer = replace(
        batch,
        tokens_ET=F.pad(batch.tokens_ET, (0, 1)),
        mask_ET=F.pad(batch.mask_ET, (0, 1)) | next_ET,
        versions_ET=F.pad(batch.versions_ET, (0, 1), value=NOT_DRAWN),
    )
    values_ET = models.output("critic", "values", longer)
    return {
        "values": values_ET[:, :T].masked_fill(~batch.mask_ET, 0.0),
        "final_values": values_ET.masked_fill(~next_ET, 0.0).sum(dim=1),
    }


PRODUCERS = (
    Producer(("old_logprobs",), _old_logprobs),
    Producer(("kl",), _kl),
    Producer(("final_values", "values"), _final_values),
    Producer(("values",), _values),
)
"""A producer is used where its first stream is wanted; the others come with it."""
