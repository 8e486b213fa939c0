"""DAPO: GRPO with clip-higher, dynamic sampling, a mean over the group's tokens and soft overlong punishment."""

from typing import ClassVar

from pydantic import Field

from sharpen.methods.fields import EpsHigh, Reduction
from sharpen.methods.grpo import GRPO
from sharpen.methods.method import UnifiedView


class DAPO(GRPO):
    """Decoupled Clip and Dynamic Sampling Policy Optimization.

    J = E 1/Σ_i|o_i| Σ_i Σ_t min[ρ Â, clip(ρ, 1 − ε_low, 1 + ε_high) Â] over groups with both right and wrong
    answers; the soft overlong punishment is added to the reward. The paper's rewards are ±1.
    """

    name = "dapo"
    unified_view = UnifiedView(
        source="current policy, G per prompt, refilled until rewards differ",
        reward="any + soft overlong punishment",
        advantage="group z-score",
        loss="clipped surrogate with a higher upper bound, mean over the group's tokens",
        gradient_coefficient="unclipped · ρ · Â",
        paper="DAPO, Yu et al. 2025, arXiv 2503.14476",
    )
    differences: ClassVar[tuple[str, ...]] = (
        "TRL's loss_type dapo is a reduction alone, 1/Σ|o| over all groups of the batch (tokens_of_batch here). "
        "Its epsilon_high is 0.2 by default, and it has no dynamic sampling.",
    )

    eps_high: EpsHigh = 0.28
    reduction: Reduction = "tokens_of_group"
    """How token losses are averaged."""
    dynamic_sampling: bool = True
    """Set aside groups whose rewards are all equal, and keep sampling until the step is full."""
    overlong_share: float = Field(0.2, ge=0, le=1)
    """Soft overlong punishment over this last share of rollout.max_new_tokens; 0: none."""
