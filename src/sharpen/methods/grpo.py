"""GRPO: the current policy, G completions per prompt × any reward × group z-score × clipped surrogate + KL."""

from typing import Literal

from pydantic import Field, model_validator
from torch import Tensor

from sharpen.advantages import Spread, group_advantages
from sharpen.losses import reduce
from sharpen.losses.kl import k3
from sharpen.losses.policy import clipped_surrogate
from sharpen.methods.method import Method, Terms
from sharpen.sources import CurrentPolicy, Source
from sharpen.types import Batch


class GRPO(Method):
    r"""Group Relative Policy Optimization with outcome rewards.

    .. math::
        J = E\ \frac1G \sum_i \frac1{|o_i|} \sum_t \{ \min[ρ_{i,t} Â_i, \mathrm{clip}(ρ_{i,t}, 1 - ε_{low},
            1 + ε_{high}) Â_i] - β\,(r - \log r - 1) \}, \quad
        Â_i = \frac{R_i - \mathrm{mean}\,R}{\mathrm{std}\,R},\ ρ = \frac{π}{π_{old}},\ r = \frac{π_{ref}}{π}
    """

    name = "grpo"
    paper = "DeepSeekMath, Shao et al. 2024, arXiv 2402.03300"
    gradient_coefficient = "live · ρ · Â + β(π_ref/π − 1)"
    needs_reward = True

    group_size: int = Field(8, ge=1)
    """G, completions drawn per prompt."""
    eps_low: float = Field(0.2, gt=0, lt=1)
    """The ratio is clipped at 1 − eps_low where the advantage is negative."""
    eps_high: float = Field(0.2, gt=0)
    """The ratio is clipped at 1 + eps_high where the advantage is positive."""
    beta: float = Field(0.0, ge=0)
    """Strength of the k3 penalty against the frozen initial policy; with 0 no reference is loaded. Paper: 0.04."""
    std: Spread = "group"
    """Spread that the centred reward is divided by: of the group, of the batch, or none."""
    ddof: Literal[0, 1] = 1
    """Degrees of freedom taken off in that spread; the paper leaves it open."""
    std_eps: float = Field(0.0, ge=0)
    """Added to the spread."""
    reduction: Literal["per_sequence", "tokens_of_group", "tokens_of_batch"] = "per_sequence"
    """How tokens are averaged; per_sequence is the paper's 1/|o_i|, which favours long wrong answers."""
    updates_per_rollout: int = Field(1, ge=1)
    """μ, passes over each rollout."""
    minibatches: int = Field(1, ge=1)
    """Optimizer steps that each pass is divided into, by prompts."""

    @model_validator(mode="after")
    def _has_spread(self) -> "GRPO":
        if self.group_size == 1:
            raise ValueError("group_size 1 leaves every advantage at 0; use at least 2")
        return self

    def source(self) -> Source:
        return CurrentPolicy(self.group_size)

    @property
    def passes_and_minibatches(self) -> tuple[int, int]:
        return self.updates_per_rollout, self.minibatches

    @property
    def needs_old_logprobs(self) -> bool:
        return True

    @property
    def needs_reference(self) -> bool:
        return self.beta > 0

    def advantages(self, batch: Batch) -> Tensor:
        advantages_B = group_advantages(batch.rewards_B, batch.group_B, std=self.std, ddof=self.ddof, eps=self.std_eps)
        return advantages_B[:, None] * batch.mask_BT

    def weights(self, batch: Batch) -> Tensor:
        if self.reduction == "tokens_of_batch":
            return reduce.tokens_of_batch(batch.mask_BT)
        if self.reduction == "tokens_of_group":
            return reduce.tokens_of_group(batch.mask_BT, batch.group_B)
        return reduce.per_sequence(batch.mask_BT, batch.group_B)

    def terms(self, logprobs_BT: Tensor, batch: Batch) -> Terms:
        assert batch.old_logprobs_BT is not None
        assert batch.advantages_BT is not None
        loss_BT, live_BT = clipped_surrogate(
            logprobs_BT,
            batch.old_logprobs_BT,
            batch.advantages_BT,
            eps_low=self.eps_low,
            eps_high=self.eps_high,
        )
        if self.beta:
            assert batch.ref_logprobs_BT is not None
            loss_BT = loss_BT + self.beta * k3(logprobs_BT, batch.ref_logprobs_BT)
        return Terms(loss_BT, live_BT)
