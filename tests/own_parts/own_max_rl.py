"""A method from outside the package: MaxRL, which is GRPO with advantages relative to the group's mean reward."""

import torch
from torch import Tensor

from sharpen.batch import Batch
from sharpen.functional.advantages import group_advantages
from sharpen.methods import GRPO, UnifiedView


class MaxRL(GRPO):
    """GRPO's objective with Â = (R_i − mean R) / mean R, and 0 where no completion of the group has a reward."""

    name = "max_rl"
    unified_view = UnifiedView(
        source="current policy, G per prompt",
        reward="any, 0 or more",
        advantage="(reward − group mean) / group mean",
        loss="clipped surrogate, mean per completion",
        gradient_coefficient="unclipped · ρ · Â",
        paper="MaxRL",
    )

    def advantages(self, batch: Batch) -> Tensor:
        centred_E = group_advantages(batch.rewards_E, batch.group_E, std="none")
        mean_E = batch.rewards_E - centred_E
        return torch.where(mean_E > 0, centred_E / mean_E, 0.0)[:, None] * batch.mask_ET
