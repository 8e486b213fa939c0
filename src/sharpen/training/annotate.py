"""What the models add to a batch before training: each stream that is wanted, from its producer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sharpen.batch import Batch, Need
from sharpen.errors import NonFiniteError
from sharpen.methods import Role
from sharpen.methods.streams import Producer
from sharpen.models.forward import MicrobatchLimits, all_outputs
from sharpen.models.model import Model
from sharpen.training.ranks import OneRank, Ranks
from sharpen.training.reference import Reference
from sharpen.training.streams import PRODUCERS
from sharpen.types import Group


@dataclass(frozen=True, slots=True)
class Annotator:
    """Annotates batches with what models say under their current weights, without gradient.

    ``frozen`` are models by name that are never trained, such as teachers; ``producers`` are the method's own. With
    several ranks, each computes a share of every stream.
    """

    models: Mapping[Role, Model]
    reference: Reference | None
    temperature: float
    limits: MicrobatchLimits
    frozen: Mapping[str, Model] = field(default_factory=dict)
    producers: tuple[Producer, ...] = ()
    ranks: Ranks = field(default_factory=OneRank)

    def annotate(
        self, batch: Batch, wanted: frozenset[str], groups: Sequence[Group], has_gradient_E: Tensor | None = None
    ) -> Batch:
        """The batch, made of ``groups``, with the streams in ``wanted`` that it does not have yet.

        With ``has_gradient_E``, the policy's log-probabilities are computed for those trajectories only.

        Raises:
            NonFiniteError: a model says NaN or infinity.
            ValueError: a stream without a producer.
        """
        models = _StepModels(self, has_gradient_E)
        reference = () if self.reference is None else (self.reference.producer,)
        for producer in (*self.producers, *reference, *PRODUCERS):
            if producer.streams[0] in wanted and producer.streams[0] not in batch:
                batch = batch.with_streams(**producer.produce(batch, groups, models))
        if missing := sorted(wanted - set(batch.streams)):
            raise ValueError(f"nothing produces the stream `{missing[0]}`: add a producer to the method's `producers`")
        return batch

    def named(self, name: str) -> Model:
        """A model by its role, or by its name among the frozen ones."""
        if name == "reference" and self.reference is not None:
            return self.reference.policy
        if name == "critic" and "critic" not in self.models:
            # The policy's value head is the critic.
            name = "policy"
        known: dict[str, Model] = {**self.frozen, **{str(role): model for role, model in self.models.items()}}
        if name not in known:
            raise ValueError(f"there is no model `{name}`; known: {', '.join(known)}")
        return known[name]


@dataclass(frozen=True, slots=True)
class _StepModels:
    """Implements `sharpen.methods.streams.StepModels`."""

    annotator: Annotator
    has_gradient_E: Tensor | None

    def output(self, model: str, need: Need, batch: Batch, *, against: str | None = None) -> Tensor:
        of = self.annotator
        other = None if against is None else of.named(against)
        share = (of.ranks.rank, of.ranks.count)
        output_ET = all_outputs(of.named(model), batch, need, of.temperature, of.limits, other, share)
        of.ranks.sum_([output_ET])
        return finite(output_ET, f"{model}'s {_NAMES[need]}")

    def needed(self, batch: Batch) -> Tensor:
        if self.has_gradient_E is None:
            return torch.arange(len(batch))
        return self.has_gradient_E.nonzero().squeeze(1)


_NAMES: dict[Need, str] = {
    "logprobs": "log-probabilities",
    "entropy": "entropies",
    "exact_kl": "KL divergences from the reference",
    "values": "values",
    "scores": "scores",
}


def finite(tensor: Tensor, what: str) -> Tensor:
    """The tensor itself. Raises `NonFiniteError`, which names it as ``what``, unless all of it is finite."""
    # aminmax propagates NaN and needs no boolean tensor of the same size.
    if tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
        raise NonFiniteError(
            f"the {what} are NaN or infinite. Lower optimizer.learning_rate, or look for extremely large rewards"
        )
    return tensor
