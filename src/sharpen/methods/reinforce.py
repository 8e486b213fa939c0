"""REINFORCE: the current policy × any reward × reward − baseline × log-likelihood."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor

from sharpen.batch import Batch
from sharpen.functional.advantages import group_advantages, leave_one_out, whiten
from sharpen.functional.losses import reduce
from sharpen.functional.losses.policy import clipped_surrogate, policy_gradient
from sharpen.functional.returns import at_last_token, reward_to_go
from sharpen.methods.fields import GroupSize
from sharpen.methods.kl import KL
from sharpen.methods.method import UnifiedView
from sharpen.methods.policy_method import PolicyMethod
from sharpen.rollout.sources import CurrentPolicy, Source
from sharpen.settings import Effect

Baseline = Literal["none", "group_mean", "leave_one_out", "whitened"]
ReinforceReduction = Literal["sum", "per_sequence", "tokens_of_batch"]


class Reinforce(PolicyMethod):
    """The plain policy gradient with a baseline.

    J = E 1/G Σ_i Σ_t A_{i,t} log π(o_{i,t}). Baselines: none, A = R; group_mean, A = R_i − mean R; leave_one_out,
    A = R_i − mean of the others' R (RLOO); whitened, the reward to go, whitened over the batch's tokens (REINFORCE++).
    """

    name = "reinforce"
    unified_view = UnifiedView(
        source="current policy, G per prompt",
        reward="any",
        advantage="reward − baseline",
        loss="log-likelihood weighted by the advantage, sum over tokens",
        gradient_coefficient="A",
        paper="Williams 1992; RLOO, Ahmadian et al. 2024, arXiv 2402.14740",
    )
    differences: ClassVar[tuple[str, ...]] = (
        "`clip: null`: A log π of each token. TRL's RLOO clips the ratio of the whole completion, Π_t ρ_t, at 1 ± "
        "0.2; its gradient is the same at ρ = 1.",
        "`reduction: sum`, as TRL's RLOO. The estimators rloo of verl and OpenRLHF average over the batch's "
        "tokens by default.",
        "`beta: 0.0` and `group_size: 4`. TRL's RLOO has R − 0.05 Σ_t (log π_old − log π_ref) and 2.",
    )

    group_size: GroupSize = 4
    baseline: Baseline = "leave_one_out"
    """Baseline that is subtracted from the reward; whitened also divides by the standard deviation."""
    reduction: ReinforceReduction = "sum"
    """How token losses are reduced: summed per completion, averaged per completion, or averaged over all tokens."""
    clip: float | None = Field(None, gt=0, le=1)
    """Use PPO's surrogate, clipped at 1 ± clip; several updates per rollout require it."""
    dual_clip: float | None = Field(None, gt=1, le=1000)
    """Where the advantage is negative, a term of the objective is never below this times the advantage."""

    effects = (
        Effect("dual_clip", "with clip", lambda s: s.clip is not None),
        # Plain log π has no ratio to π_old.
        Effect(
            "old",
            "with clip, with a KL in the reward that is not exact, or with weighted_k3",
            lambda s: s.clip is not None or (s.beta > 0 and s.kl.reads_old),
        ),
    )

    @model_validator(mode="after")
    def _check_settings(self) -> Reinforce:
        if self.group_size == 1 and self.baseline in ("group_mean", "leave_one_out"):
            raise ValueError(f"baseline {self.baseline} compares completions of a prompt: group_size must be 2 or more")
        if self.clip is None and self.passes_and_minibatches != (1, 1):
            raise ValueError(
                "with several updates per rollout the policy is no longer the one that sampled, which plain log π "
                "ignores: set `clip` (0.2, say) to use the clipped ratio"
            )
        return self

    def source(self) -> Source:
        return CurrentPolicy(self.group_size)

    @property
    def corrects_stale(self) -> bool:
        # π_old of the KL corrects nothing in A log π.
        return self.tis_cap is not None or (self.clip is not None and self.old == "rollout")

    def advantages(self, batch: Batch) -> Tensor:
        cost_ET = self.kl_cost(batch)
        if self.baseline in ("none", "whitened"):
            rewards_ET = at_last_token(batch.rewards_E, batch.mask_ET) - cost_ET
            advantages_ET = reward_to_go(rewards_ET, batch.mask_ET)
            if self.baseline == "none":
                return advantages_ET
            return whiten(
                advantages_ET, batch.mask_ET, input_rounding=self.reward_rounding(batch).nan_to_num(nan=0.0).max()
            )
        rewards_E, rounding_E = batch.rewards_E - cost_ET.sum(dim=1), self.reward_rounding(batch)
        if self.baseline == "leave_one_out":
            advantages_E = leave_one_out(rewards_E, batch.group_E, rounding_E=rounding_E)
        else:
            advantages_E = group_advantages(rewards_E, batch.group_E, std="none", rounding_E=rounding_E)
        return advantages_E[:, None] * batch.mask_ET

    def weights(self, batch: Batch) -> Tensor:
        if self.reduction == "sum":
            return reduce.constant_length(batch.mask_ET, batch.group_E, 1)
        if self.reduction == "tokens_of_batch":
            return reduce.tokens_of_batch(batch.mask_ET)
        return reduce.per_sequence(batch.mask_ET, batch.group_E)

    def surrogate(self, logprobs_ET: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        if self.clip is None:
            return policy_gradient(logprobs_ET, batch["advantages"]), None
        return clipped_surrogate(
            logprobs_ET,
            batch["old_logprobs"],
            batch["advantages"],
            eps_low=self.clip,
            eps_high=self.clip,
            dual_clip=self.dual_clip,
        )


class RLOO(Reinforce):
    """REINFORCE with the leave-one-out baseline: A = R_i − mean of the others' R = G/(G − 1) · (R_i − mean R)."""

    name = "rloo"
    unified_view = UnifiedView(
        source="current policy, G per prompt",
        reward="any",
        advantage="reward − mean of the others'",
        loss="log-likelihood weighted by the advantage, sum over tokens",
        gradient_coefficient="A",
        paper="RLOO, Ahmadian et al. 2024, arXiv 2402.14740",
    )


class ReinforcePlusPlus(Reinforce):
    """REINFORCE++: the reward minus the KL to go, whitened over all tokens of the batch, and PPO's clip.

    J = E min[ρ A, clip(ρ, 1 − ε, 1 + ε) A], A_t = R − β Σ_{i ≥ t} (log π_old − log π_ref), whitened.
    """

    name = "reinforce_plus_plus"
    unified_view = UnifiedView(
        source="current policy",
        reward="any − β KL per token",
        advantage="reward to go, whitened over the batch",
        loss="clipped surrogate, mean over the batch's tokens",
        gradient_coefficient="unclipped · ρ · A",
        paper="REINFORCE++, Hu et al. 2025, arXiv 2501.03262",
    )
    differences: ClassVar[tuple[str, ...]] = (
        "Whitening divides by the root of Σ(x − mean)²/(n − 1). verl adds 1e-8 to that variance; OpenRLHF "
        "(estimator reinforce) divides by n.",
        "`beta: 0.01`, as in OpenRLHF. verl leaves the KL out by default (use_kl_in_reward).",
    )

    beta: float = Field(0.01, ge=0, le=1000)
    """Coefficient of the KL penalty to the reference; with 0 no reference is loaded."""
    kl: KL = KL(estimator="k1", placement="reward")
    """Settings of the KL penalty."""
    group_size: GroupSize = 1
    baseline: Baseline = "whitened"
    """Baseline that is subtracted from the reward; whitened also divides by the standard deviation."""
    reduction: ReinforceReduction = "tokens_of_batch"
    """How token losses are reduced."""
    clip: float | None = Field(0.2, gt=0, le=1)
    """Use PPO's surrogate, clipped at 1 ± clip."""
