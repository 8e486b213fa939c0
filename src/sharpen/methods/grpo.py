"""GRPO: the current policy, G completions per prompt × any reward × group z-score × clipped surrogate + KL."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from sharpen.batch import Batch
from sharpen.functional.losses import reduce
from sharpen.functional.losses.policy import clipped_surrogate
from sharpen.methods.fields import DualClip, EpsHigh, EpsLow, Reduction
from sharpen.methods.group_method import GroupMethod
from sharpen.methods.method import UnifiedView
from sharpen.settings import Effect


class GRPO(GroupMethod):
    r"""Group Relative Policy Optimization.

    J = E 1/G Σ_i 1/|o_i| Σ_t { min[ρ Â, clip(ρ, 1 − ε_low, 1 + ε_high) Â] − β (r − log r − 1) },
    ρ = π/π_old and r = π_ref/π of token t of completion i. Outcome supervision: Â = (R_i − mean R) / std R over the
    group. Process supervision: Â = Σ over the steps that end at or after t of (R_step − mean) / std, over all steps
    of the group.
    """

    name = "grpo"
    unified_view = UnifiedView(
        source="current policy, G per prompt",
        reward="any, per completion or per step",
        advantage="group z-score",
        loss="clipped surrogate, mean per completion, + β KL",
        gradient_coefficient="unclipped · ρ · Â + β(π_ref/π − 1)",
        paper="DeepSeekMath, Shao et al. 2024, arXiv 2402.03300",
    )
    differences: ClassVar[tuple[str, ...]] = (
        "`reduction: per_sequence` is the paper's; it is TRL's loss_type grpo, and seq-mean-token-mean in verl "
        "and OpenRLHF. All three default to tokens_of_batch: TRL's loss_type dapo, the others' token-mean.",
        "constant is TRL's loss_type dr_grpo, and seq-mean-token-sum-norm in verl. tokens_of_group, the mean over "
        "each group's tokens and then over groups, is in none of them.",
        "`dual_clip: null`, as TRL's delta and OpenRLHF's dual_clip. verl's clip_ratio_c is 3.",
    )

    beta: float = Field(0.0, ge=0, le=1000)
    """Coefficient of the KL penalty to the reference; with 0 no reference is loaded. DeepSeekMath: 0.04."""
    eps_low: EpsLow = 0.2
    eps_high: EpsHigh = 0.2
    dual_clip: DualClip = None
    reduction: Reduction = "per_sequence"
    """How token losses are averaged. per_sequence is the paper's 1/|o_i|, which favours long wrong answers."""
    constant_length: int | None = Field(None, ge=1)
    """L of reduction constant; null: rollout.max_new_tokens."""

    effects = (Effect("constant_length", "with reduction constant", lambda s: s.reduction == "constant"),)

    def weights(self, batch: Batch) -> Tensor:
        if self.reduction == "constant":
            return reduce.constant_length(batch.mask_ET, batch.group_E, self.constant_length or batch.completion_limit)
        if self.reduction == "tokens_of_batch":
            return reduce.tokens_of_batch(batch.mask_ET)
        if self.reduction == "tokens_of_group":
            return reduce.tokens_of_group(batch.mask_ET, batch.group_E)
        return reduce.per_sequence(batch.mask_ET, batch.group_E)

    def surrogate(self, logprobs_ET: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        return clipped_surrogate(
            logprobs_ET,
            batch["old_logprobs"],
            batch["advantages"],
            eps_low=self.eps_low,
            eps_high=self.eps_high,
            dual_clip=self.dual_clip,
        )
