"""What the models add to a batch before it is trained on: log-probabilities and values, where they are wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from sharpen.errors import NonFiniteError
from sharpen.methods import Role
from sharpen.models.model import Model
from sharpen.training.reference import Reference
from sharpen.training.update import MicrobatchLimits, all_outputs
from sharpen.types import Annotation, Batch, Group, Need


@dataclass(frozen=True, slots=True)
class Annotator:
    """The models of a run and how they are asked. Everything is of the weights as they are now, without gradient.

    Raises `NonFiniteError` where a model says NaN or infinity.
    """

    models: Mapping[Role, Model]
    reference: Reference | None
    temperature: float
    limits: MicrobatchLimits

    def annotate(
        self, batch: Batch, wanted: frozenset[Annotation], groups: Sequence[Group], has_gradient_B: Tensor | None = None
    ) -> Batch:
        """The batch, made of ``groups``, with what is wanted and not there yet.

        The policy is asked of ``has_gradient_B`` alone, where only those sequences can have a gradient.
        """
        if "old_logprobs" in wanted and batch.old_logprobs_BT is None:
            asked = torch.arange(len(batch)) if has_gradient_B is None else has_gradient_B.nonzero().squeeze(1)
            old_BT = torch.zeros(batch.tokens_BT.shape)
            if len(asked):
                old_BT[asked] = self._ask(batch.select(asked), "logprobs", "policy")
            batch = replace(batch, old_logprobs_BT=old_BT)
        if "ref_logprobs" in wanted and batch.ref_logprobs_BT is None:
            assert self.reference is not None
            ref_BT = self.reference.logprobs(groups, batch, self.temperature, self.limits)
            batch = replace(batch, ref_logprobs_BT=finite(ref_BT, "reference's log-probabilities"))
        if "kl" in wanted and batch.kl_BT is None:
            assert self.reference is not None
            kl_BT = self._ask(batch, "exact_kl", "policy", self.reference.policy)
            batch = replace(batch, kl_BT=kl_BT)
        if "final_values" in wanted and batch.final_values_B is None:
            batch = self._with_final_values(batch)
        if "values" in wanted and batch.values_BT is None:
            batch = replace(batch, values_BT=self._ask(batch, "values", self._critic))
        return batch

    @property
    def _critic(self) -> Role:
        """A critic that shares the policy's backbone is a head of the policy."""
        return "critic" if "critic" in self.models else "policy"

    def _with_final_values(self, batch: Batch) -> Batch:
        """The values before each token, and those after the completions that were cut off."""
        assert batch.lengths_B is not None
        T = batch.tokens_BT.shape[1]
        goes_on_B = batch.truncated_B & batch.mask_BT.any(dim=1)
        # The value after a completion is that before one more token, whichever that would be.
        next_BT = (torch.arange(T + 1) == batch.lengths_B[:, None]) & goes_on_B[:, None]
        longer = replace(
            batch, tokens_BT=F.pad(batch.tokens_BT, (0, 1)), mask_BT=F.pad(batch.mask_BT, (0, 1)) | next_BT
        )
        values_BT = self._ask(longer, "values", self._critic)
        return replace(
            batch,
            values_BT=values_BT[:, :T].masked_fill(~batch.mask_BT, 0.0),
            final_values_B=values_BT.masked_fill(~next_BT, 0.0).sum(dim=1),
        )

    def _ask(self, batch: Batch, need: Need, role: Role, reference: Model | None = None) -> Tensor:
        said_BT = all_outputs(self.models[role], batch, need, self.temperature, self.limits, reference)
        return finite(said_BT, f"{role}'s {_CALLED[need]}")


_CALLED: dict[Need, str] = {
    "logprobs": "log-probabilities",
    "entropy": "entropies",
    "exact_kl": "KL divergences from the reference",
    "values": "values",
    "scores": "scores",
}


def finite(tensor: Tensor, what: str) -> Tensor:
    """The same tensor. Raises `NonFiniteError`, which names it as ``what``, where not all of it is finite."""
    # NaN is its own least and greatest, and no tensor of truth values is made.
    if tensor.numel() and not torch.stack(tensor.aminmax()).isfinite().all():
        raise NonFiniteError(
            f"the {what} are NaN or infinite. Lower optimizer.learning_rate, or look for rewards of enormous size"
        )
    return tensor
