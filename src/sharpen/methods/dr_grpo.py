"""Dr. GRPO: GRPO without its divisions by the group's standard deviation and by the completion's length."""

from typing import ClassVar

from sharpen.functional.advantages import Spread
from sharpen.methods.fields import Reduction
from sharpen.methods.grpo import GRPO
from sharpen.methods.method import UnifiedView


class DrGRPO(GRPO):
    """GRPO done right: J = E 1/G Σ_i 1/L Σ_t min[ρ Â, clip(ρ, 1 − ε, 1 + ε) Â], Â = R_i − mean R, L constant.

    1/|o_i| favours long wrong answers, and 1/std prompts whose answers are almost always right or almost always wrong.
    """

    name = "dr_grpo"
    unified_view = UnifiedView(
        source="current policy, G per prompt",
        reward="any",
        advantage="reward − group mean",
        loss="clipped surrogate, sum over tokens / constant length",
        gradient_coefficient="unclipped · ρ · Â",
        paper="Dr. GRPO, Liu et al. 2025, arXiv 2503.20783",
    )
    differences: ClassVar[tuple[str, ...]] = (
        "TRL's loss_type dr_grpo is the constant length alone: its scale_rewards still divides by the group's "
        "standard deviation. OpenRLHF's estimator dr_grpo is the centred reward alone: its loss remains "
        "token-mean.",
    )

    std: Spread = "none"
    """Standard deviation that the centred reward is divided by: of the group, of the batch, or none."""
    reduction: Reduction = "constant"
    """How token losses are averaged; constant divides their sum by the same length for all completions."""
