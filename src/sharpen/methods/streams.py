"""Streams: what models add to a batch before it is trained on, by name, each with a declared producer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from sharpen.batch import Batch, Need
from sharpen.types import Group


class StepModels(Protocol):
    """The models of a step, as a producer may use them: without gradient, and with their current weights."""

    def output(self, model: str, need: Need, batch: Batch, *, against: str | None = None) -> Tensor:
        """What ``model`` says of every trained token of the batch, [E, T]; see `sharpen.batch.Need`.

        ``model`` is a trained model's role, ``critic``, ``reference``, or one of the method's ``frozen_models``;
        ``against`` is the other distribution of an exact KL. Raises NonFiniteError for NaN and infinities.
        """
        ...

    def needed(self, batch: Batch) -> Tensor:
        """The numbers of the trajectories that will have a gradient, ascending."""
        ...


@dataclass(frozen=True, slots=True)
class Producer:
    """Computes ``streams`` for the batch of a rollout, collated from ``groups``. It is used where the first is wanted.

    A producer with a prefix of its own, such as a teacher that sees a hint, gives the models a batch with other
    ``prefixes``.
    """

    streams: tuple[str, ...]
    produce: Callable[[Batch, Sequence[Group], StepModels], Mapping[str, Tensor]]


def logprobs_of(model: str, stream: str) -> Producer:
    """The log-probabilities of the trained tokens under a model, such as a teacher of ``frozen_models``."""
    return Producer((stream,), lambda batch, groups, models: {stream: models.output(model, "logprobs", batch)})
