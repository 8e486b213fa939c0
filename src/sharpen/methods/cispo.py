"""CISPO: GRPO whose ratio is a clipped weight without gradient, so that no token is dropped."""

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from sharpen.batch import Batch
from sharpen.functional.losses import reduce
from sharpen.functional.losses.policy import clipped_weight_surrogate
from sharpen.methods.group_method import GroupMethod
from sharpen.methods.method import UnifiedView


class CISPO(GroupMethod):
    """Clipped Importance Sampling Policy Optimization.

    J = E 1/Σ_i|o_i| Σ_i Σ_t sg[min(ρ, 1 + ε_high)] Â_i log π.

    The weight is bounded above only, unless eps_low is given.
    """

    name = "cispo"
    unified_view = UnifiedView(
        source="current policy, G per prompt",
        reward="any",
        advantage="group z-score",
        loss="log-likelihood weighted by Â and the clipped ratio, mean over the group's tokens",
        gradient_coefficient="min(ρ, 1 + ε_high) · Â",
        paper="MiniMax-M1, 2025, arXiv 2506.13585",
    )
    differences: ClassVar[tuple[str, ...]] = (
        "The weight is at most 1 + eps_high. In TRL (loss_type cispo) the bound is epsilon_high itself, by "
        "default 0.2: eps_high here is epsilon_high − 1. verl bounds it to 1 ± 0.2, also from below.",
        "The mean over each group's tokens, then over groups. TRL and verl take the mean over the batch's tokens.",
    )

    eps_high: float = Field(0.28, gt=0, le=1000)
    """The weight is at most 1 + eps_high."""
    eps_low: float | None = Field(None, gt=0, le=1)
    """The weight is at least 1 − eps_low; null: not bounded below."""

    def weights(self, batch: Batch) -> Tensor:
        return reduce.tokens_of_group(batch.mask_ET, batch.group_E)

    def surrogate(self, logprobs_ET: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return clipped_weight_surrogate(
            logprobs_ET, batch["old_logprobs"], batch["advantages"], eps_high=self.eps_high, eps_low=self.eps_low
        )
