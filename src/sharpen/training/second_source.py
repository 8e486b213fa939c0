"""The second source of a method: what it adds to every update of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from sharpen.batch import Batch
from sharpen.methods import Mixed, Objective
from sharpen.training.annotate import Annotator
from sharpen.training.coefficients import Coefficients
from sharpen.training.method_batch import batch_of
from sharpen.training.update import with_weights
from sharpen.types import Group

GIVEN = 1.0
"""The temperature of tokens that this run did not sample."""


@dataclass(frozen=True, slots=True)
class SecondSource:
    """``mixed`` with the learner's annotator, whose ``frozen`` models include its own."""

    mixed: Mixed
    annotator: Annotator

    @property
    def objective(self) -> Objective:
        (objective,) = self.mixed.method.objectives()
        return objective

    def batches(self, groups: Sequence[Group], updates: int, step: int) -> list[Batch]:
        """What joins each of the ``updates`` of a pass of ``step``, with its weights; some are empty if there are fewer
        groups."""
        method = self.mixed.method
        annotator = replace(self.annotator, temperature=GIVEN, producers=method.producers())
        batch = batch_of(method, annotator, groups, Coefficients(method.coefficients()).at(step))
        return [with_weights(method, part) if len(part) else part for part in in_parts(batch, updates)]


def in_parts(batch: Batch, count: int) -> list[Batch]:
    """The batch in ``count`` parts of whole groups; the last are empty if there are fewer groups."""
    if count == 1:
        return [batch]
    split = torch.arange(batch.groups).tensor_split(count)
    return [batch.select(torch.isin(batch.group_E, groups).nonzero().squeeze(1)) for groups in split]
