"""DAPO: GRPO with clip-higher, dynamic sampling, a mean over the group's tokens and soft overlong punishment."""

from typing import Literal

from pydantic import Field

from sharpen.methods.grpo import GRPO
from sharpen.methods.method import UnifiedView


class DAPO(GRPO):
    """Decoupled Clip and Dynamic Sampling Policy Optimization.

    J = E 1/Σ_i|o_i| Σ_i Σ_t min[ρ Â, clip(ρ, 1 − ε_low, 1 + ε_high) Â] over groups in which some answers are right and
    some are wrong, with the punishment of long answers added to the reward. The paper's rewards are ±1.
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

    eps_high: float = Field(0.28, gt=0)
    """The ratio is clipped at 1 + eps_high where the advantage is positive."""
    reduction: Literal["per_sequence", "tokens_of_group", "tokens_of_batch", "constant"] = "tokens_of_group"
    """How tokens are averaged."""
    dynamic_sampling: bool = True
    """Set groups whose rewards are all equal aside, and sample on until the step is full."""
    overlong_share: float = Field(0.2, ge=0, le=1)
    """Soft overlong punishment over this last share of rollout.max_new_tokens; 0: none."""
