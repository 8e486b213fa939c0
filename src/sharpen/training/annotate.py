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
        self, batch: Batch, wanted: frozenset[Annotation], groups: Sequence[Group], has_gradient_E: Tensor | None = None
    ) -> Batch:
        """The batch, made of ``groups``, with the annotations in ``wanted`` that it does not have yet.

        With ``has_gradient_E``, the policy's log-probabilities are computed for those sequences only.
        """
        if "old_logprobs" in wanted and batch.old_logprobs_ET is None:
            selected = torch.arange(len(batch)) if has_gradient_E is None else has_gradient_E.nonzero().squeeze(1)
            old_ET = torch.zeros(batch.tokens_ET.shape)
            if len(selected):
                old_ET[selected] = self._compute(batch.select(selected), "logprobs", "policy")
            batch = replace(batch, old_logprobs_ET=old_ET)
        if "ref_logprobs" in wanted and batch.ref_logprobs_ET is None:
            assert self.reference is not None
            ref_ET = self.reference.logprobs(groups, batch, self.temperature, self.limits)
            batch = replace(batch, ref_logprobs_ET=finite(ref_ET, "reference's log-probabilities"))
        if "kl" in wanted and batch.kl_ET is None:
            assert self.reference is not None
            kl_ET = self._compute(batch, "exact_kl", "policy", self.reference.policy)
            batch = replace(batch, kl_ET=kl_ET)
        if "final_values" in wanted and batch.final_values_E is None:
            batch = self._with_final_values(batch)
        if "values" in wanted and batch.values_ET is None:
            batch = replace(batch, values_ET=self._compute(batch, "values", self._critic))
        return batch

    @property
    def _critic(self) -> Role:
        """The policy, if its value head is the critic."""
        return "critic" if "critic" in self.models else "policy"

    def _with_final_values(self, batch: Batch) -> Batch:
        """Adds the values before each token, and the final values of truncated completions."""
        assert batch.lengths_E is not None
        T = batch.tokens_ET.shape[1]
        continued_E = batch.truncated_E & batch.mask_ET.any(dim=1)
        # The value after a completion is the value before one more token, whatever that token is.
        next_ET = (torch.arange(T + 1) == batch.lengths_E[:, None]) & continued_E[:, None]
        longer = replace(
            batch, tokens_ET=F.pad(batch.tokens_ET, (0, 1)), mask_ET=F.pad(batch.mask_ET, (0, 1)) | next_ET
        )
        values_ET = self._compute(longer, "values", self._critic)
        return replace(
            batch,
            values_ET=values_ET[:, :T].masked_fill(~batch.mask_ET, 0.0),
            final_values_E=values_ET.masked_fill(~next_ET, 0.0).sum(dim=1),
        )

    def _compute(self, batch: Batch, need: Need, role: Role, reference: Model | None = None) -> Tensor:
        outputs_ET = all_outputs(self.models[role], batch, need, self.temperature, self.limits, reference)
        return finite(outputs_ET, f"{role}'s {_NAMES[need]}")


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
