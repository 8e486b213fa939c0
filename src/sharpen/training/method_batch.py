"""From groups to the batch that a method's objective reads: streams, advantages, targets and loss mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sharpen.batch import Batch
from sharpen.data.collate import collate
from sharpen.methods import Method
from sharpen.training.annotate import Annotator, finite
from sharpen.types import Group


def with_advantages(method: Method, annotator: Annotator, batch: Batch, groups: Sequence[Group]) -> Batch:
    """The batch, made of ``groups``, with the streams that advantages need, advantages, targets and loss mask.

    Raises:
        NonFiniteError: a model's output or an advantage is NaN or infinite.
    """
    batch = annotator.annotate(batch, method.streams, groups)
    targets_ET = method.targets(batch)
    batch = batch.with_streams(advantages=method.advantages(batch).float())
    if targets_ET is not None:
        batch = batch.with_streams(targets=targets_ET.float())
    finite(batch["advantages"], "advantages, computed from the rewards,")
    return replace(batch, mask_ET=method.loss_mask(batch))


def batch_of(method: Method, annotator: Annotator, groups: Sequence[Group], coefficients: Mapping[str, float]) -> Batch:
    """The batch of given completions, with all that the method's first objective needs but the weights."""
    batch = replace(collate(groups), coefficients=coefficients)
    batch = with_advantages(method, annotator, batch, groups)
    return annotator.annotate(batch, method.objectives()[0].streams, groups)
