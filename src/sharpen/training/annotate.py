"""What the models add to a batch before training: log-probabilities, values and the exact KL, where needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from sharpen.errors import NonFiniteError
from sharpen.methods import Role
from sharpen.models.forward import MicrobatchLimits, all_outputs
from sharpen.models.model import Model
from sharpen.training.reference import Reference
from sharpen.types import Annotation, Batch, Group, Need


@dataclass(frozen=True, slots=True)
class Annotator:
    """Annotates batches with the models' outputs under their current weights, without gradient.

    Raises `NonFiniteError` if a model outputs NaN or infinity.
    """

    models: Mapping[Role, Model]
    reference: Reference | None
    temperature: float
    limits: MicrobatchLimits

    def annotate(
        self, batch: Batch, wanted: frozenset[Annotation], groups: Sequence[Group], has_gradient_B: Tensor | None = None
    ) -> Batch:
        """The batch, made of ``groups``, with the annotations in ``wanted`` that it does not have yet.

        With ``has_gradient_B``, the policy's log-probabilities are computed for those sequences only.
        """
        if "old_logprobs" in wanted and batch.old_logprobs_BT is None:
            selected = torch.arange(len(batch)) if has_gradient_B is None else has_gradient_B.nonzero().squeeze(1)
            old_BT = torch.zeros(batch.tokens_BT.shape)
            if len(selected):
                old_BT[selected] = self._compute(batch.select(selected), "logprobs", "policy")
            batch = replace(batch, old_logprobs_BT=old_BT)
        if "ref_logprobs" in wanted and batch.ref_logprobs_BT is None:
            assert self.reference is not None
            ref_BT = self.reference.logprobs(groups, batch, self.temperature, self.limits)
            batch = replace(batch, ref_logprobs_BT=finite(ref_BT, "reference's log-probabilities"))
        if "kl" in wanted and batch.kl_BT is None:
            assert self.reference is not None
            kl_BT = self._compute(batch, "exact_kl", "policy", self.reference.policy)
            batch = replace(batch, kl_BT=kl_BT)
        if "final_values" in wanted and batch.final_values_B is None:
            batch = self._with_final_values(batch)
        if "values" in wanted and batch.values_BT is None:
            batch = replace(batch, values_BT=self._compute(batch, "values", self._critic))
        return batch

    @property
    def _critic(self) -> Role:
        """The policy, if its value head is the critic."""
        return "critic" if "critic" in self.models else "policy"

    def _with_final_values(self, batch: Batch) -> Batch:
        """Adds the values before each token, and the final values of truncated completions."""
        assert batch.lengths_B is not None
        T = batch.tokens_BT.shape[1]
        continued_B = batch.truncated_B & batch.mask_BT.any(dim=1)
        # The value after a completion is the value before one more token, whatever that token is.
        next_BT = (torch.arange(T + 1) == batch.lengths_B[:, None]) & continued_B[:, None]
        longer = replace(
            batch, tokens_BT=F.pad(batch.tokens_BT, (0, 1)), mask_BT=F.pad(batch.mask_BT, (0, 1)) | next_BT
        )
        values_BT = self._compute(longer, "values", self._critic)
        return replace(
            batch,
            values_BT=values_BT[:, :T].masked_fill(~batch.mask_BT, 0.0),
            final_values_B=values_BT.masked_fill(~next_BT, 0.0).sum(dim=1),
        )

    def _compute(self, batch: Batch, need: Need, role: Role, reference: Model | None = None) -> Tensor:
        outputs_BT = all_outputs(self.models[role], batch, need, self.temperature, self.limits, reference)
        return finite(outputs_BT, f"{role}'s {_NAMES[need]}")


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
