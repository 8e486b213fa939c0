"""The second source of a method: what it adds to every update of a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from sharpen.batch import Batch
from sharpen.data.collate import collate
from sharpen.methods import Mixed, Objective
from sharpen.training.annotate import Annotator
from sharpen.training.update import with_weights
from sharpen.types import Group

GIVEN = 1.0
"""The temperature of tokens that this run did not sample."""


@dataclass(frozen=True, slots=True)
class SecondSource:
    """``mixed`` with the models to annotate its batches; they are divided among ``minibatches`` updates."""

    mixed: Mixed
    annotator: Annotator
    minibatches: int

    @property
    def objective(self) -> Objective:
        (objective,) = self.mixed.method.objectives()
        return objective

    def batches(self, groups: Sequence[Group]) -> list[Batch]:
        """What joins each update of a pass, with its weights; nothing without groups."""
        if not groups:
            return []
        method = self.mixed.method
        annotator = replace(self.annotator, temperature=GIVEN)
        batch = annotator.annotate(collate(groups), method.streams | self.objective.streams, groups)
        batch = batch.with_streams(advantages=method.advantages(batch).float())
        return [with_weights(method, part) for part in in_parts(batch, self.minibatches)]


def in_parts(batch: Batch, count: int) -> list[Batch]:
    """The batch in ``count`` parts of whole groups; fewer if there are fewer groups."""
    if count == 1:
        return [batch]
    split = torch.arange(batch.groups).tensor_split(count)
    parts = [batch.select(torch.isin(batch.group_E, groups).nonzero().squeeze(1)) for groups in split]
    return [part for part in parts if len(part)]
