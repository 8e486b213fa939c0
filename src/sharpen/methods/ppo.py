"""PPO: the current policy × any reward − β KL × GAE with a critic × clipped surrogate + value loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from sharpen.batch import Batch, Outputs
from sharpen.functional.advantages import whiten
from sharpen.functional.losses import reduce
from sharpen.functional.losses.policy import clipped_surrogate, kl_penalised_surrogate
from sharpen.functional.losses.value import value_loss
from sharpen.functional.returns import at_last_token, gae, td_targets
from sharpen.functional.rounding import rounding
from sharpen.methods.coefficient import AdaptiveCoefficient
from sharpen.methods.fields import DualClip, EpsHigh, EpsLow, GroupSize, Minibatches
from sharpen.methods.kl import KL
from sharpen.methods.method import LossTerms, Objective, UnifiedView
from sharpen.methods.policy_method import PolicyMethod
from sharpen.rollout.sources import CurrentPolicy, Source
from sharpen.settings import Effect, Name


class PPO(PolicyMethod):
    """Proximal Policy Optimization with a critic, as in RLHF.

    R_t = −β (log π_old − log π_ref), plus the completion's reward at its last token; δ_t = R_t + γ V_{t+1} − V_t;
    A_t = δ_t + γλ A_{t+1}. J = E min[ρ A, clip(ρ, 1 − ε_low, 1 + ε_high) A] − c (V − y)²/2, mean over the batch's
    tokens; y = A_t + V_t without gradient. Form kl: ρ A − β' KL(π_old ‖ π) in place of the clip, with adaptive β'.
    """

    name = "ppo"
    unified_view = UnifiedView(
        source="current policy",
        reward="any, at the last token − β KL per token",
        advantage="GAE with a critic",
        loss="clipped surrogate + value loss, mean over the batch's tokens",
        gradient_coefficient="unclipped · ρ · A_t",
        paper="Schulman et al. 2017, arXiv 1707.06347; InstructGPT, arXiv 2203.02155",
    )
    differences: ClassVar[tuple[str, ...]] = (
        "TRL has no PPO; what follows compares with verl and OpenRLHF.",
        "`lam: 0.95`; theirs is 1.",
        "`value_clip: null`; both clip a value at 0.5 from its old one.",
        "`critic_learning_rate_ratio: 1.0`; verl's critic learns with 1e-5 and its policy with 1e-6, OpenRLHF's "
        "with 9e-6 and 1e-6.",
        "`beta: 0.02`; verl leaves the KL out by default (use_kl_in_reward), OpenRLHF has 0.01.",
        "`dual_clip: null`, as in OpenRLHF. verl's clip_ratio_c is 3.",
        "Whitening divides by the root of Σ(x − mean)²/(n − 1). verl adds 1e-8 to that variance; OpenRLHF divides "
        "by n.",
    )

    beta: float = Field(0.02, ge=0, le=1000)
    """Coefficient of the KL penalty to the reference; with 0 no reference is loaded. InstructGPT: 0.02."""
    kl: KL = KL(estimator="k1", placement="reward")
    """Settings of the KL penalty."""
    minibatches: Minibatches = 4
    group_size: GroupSize = 1
    gamma: float = Field(1.0, gt=0, le=1)
    """Discount per token."""
    lam: float = Field(0.95, ge=0, le=1)
    """λ of GAE. DeepSeek-R1 found 1 much better for long reasoning."""
    whiten_advantages: bool = True
    """Subtract the mean and divide by the standard deviation over the batch's tokens."""
    form: Literal["clip", "kl"] = "clip"
    """Keep the policy near π_old by clipping, or by a penalty on KL(π_old ‖ π)."""
    eps_low: EpsLow = 0.2
    eps_high: EpsHigh = 0.2
    dual_clip: DualClip = None
    old_kl_coef: float = Field(1.0, gt=0, le=1000)
    """Initial coefficient of the penalty on KL(π_old ‖ π)."""
    old_kl_target: float = Field(0.01, gt=0, le=1000)
    """Target of KL(π_old ‖ π) in nats per token. Below target / 1.5 the coefficient is halved after a step, above 1.5 ·
    target doubled."""
    critic: Literal["own", "shared"] = "own"
    """own: a separate model. shared: a value head on the policy's backbone."""
    critic_path: Name | None = None
    """Model that a separate critic starts from; null: the reward model if there is one, else the initial policy."""
    critic_learning_rate_ratio: float = Field(1.0, gt=0, le=1_000_000)
    """Learning rate of a separate critic, as a multiple of the policy's."""
    value_coef: float = Field(0.1, gt=0, le=1000)
    """Coefficient of the value loss in the loss of the shared backbone."""
    value_target: Literal["lambda", "td"] = "lambda"
    """Target of the critic. lambda: A_t + V_t. td: R_t + γ V_{t+1}."""
    value_clip: float | None = Field(None, gt=0)
    """How far a value may move from its value at the start of the step before its gradient stops."""
    bootstrap_truncated: bool = False
    """For truncated completions, take the critic's value of the state after the last token as V_{T+1}, instead of 0."""

    effects = (
        *(Effect(name, "with form clip", lambda s: s.form == "clip") for name in ("eps_low", "eps_high", "dual_clip")),
        *(Effect(name, "with form kl", lambda s: s.form == "kl") for name in ("old_kl_coef", "old_kl_target")),
        # A shared critic is a head on the policy.
        Effect("critic_path", "with critic own", lambda s: s.critic == "own"),
        Effect("critic_learning_rate_ratio", "with critic own", lambda s: s.critic == "own"),
        Effect("value_coef", "with critic shared", lambda s: s.critic == "shared"),
    )

    def source(self) -> Source:
        return CurrentPolicy(self.group_size)

    def coefficients(self) -> Mapping[str, AdaptiveCoefficient]:
        adapted = dict(super().coefficients())
        if self.form == "kl":
            adapted["old_kl"] = AdaptiveCoefficient(
                self.old_kl_coef, target=self.old_kl_target, rule="double", measured_by="kl_old"
            )
        return adapted

    @property
    def critic_start(self) -> str | None:
        return self.critic_path

    @property
    def streams(self) -> frozenset[str]:
        # KL(π_old ‖ π) is measured after the last update, against log-probabilities from before the first.
        measured: frozenset[str] = frozenset({"old_logprobs"} if self.form == "kl" else ())
        after: frozenset[str] = frozenset({"final_values"} if self.bootstrap_truncated else ())
        return super().streams | measured | after | {"values"}

    def advantages(self, batch: Batch) -> Tensor:
        rewards_ET, values_ET, bootstrap_E = self._returns(batch)
        advantages_ET = gae(
            rewards_ET, values_ET, batch.mask_ET, gamma=self.gamma, lam=self.lam, bootstrap_E=bootstrap_E
        )
        if not self.whiten_advantages:
            return advantages_ET
        input_rounding = self.reward_rounding(batch).nan_to_num(nan=0.0).max() + rounding(batch["values"]).max()
        return whiten(advantages_ET, batch.mask_ET, input_rounding=input_rounding)

    def targets(self, batch: Batch) -> Tensor:
        rewards_ET, values_ET, bootstrap_E = self._returns(batch)
        if self.value_target == "td":
            return td_targets(rewards_ET, values_ET, batch.mask_ET, gamma=self.gamma, bootstrap_E=bootstrap_E)
        advantages_ET = gae(
            rewards_ET, values_ET, batch.mask_ET, gamma=self.gamma, lam=self.lam, bootstrap_E=bootstrap_E
        )
        return advantages_ET + values_ET * batch.mask_ET

    def _returns(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor | None]:
        """The reward of each token, the value before each, and V_{T+1}: 0 unless the completion was truncated."""
        values_ET = batch["values"].double()
        rewards_ET = at_last_token(batch.rewards_E, batch.mask_ET) - self.kl_cost(batch)
        if not self.bootstrap_truncated:
            return rewards_ET, values_ET, None
        final_E = batch["final_values"].double()
        return rewards_ET, values_ET, final_E.where(batch.truncated_E, torch.zeros_like(final_E))

    def weights(self, batch: Batch) -> Tensor:
        return reduce.tokens_of_batch(batch.mask_ET)

    def surrogate(self, logprobs_ET: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        if self.form == "kl":
            beta = batch.coefficients["old_kl"]
            return kl_penalised_surrogate(logprobs_ET, batch["old_logprobs"], batch["advantages"], beta=beta), None
        return clipped_surrogate(
            logprobs_ET,
            batch["old_logprobs"],
            batch["advantages"],
            eps_low=self.eps_low,
            eps_high=self.eps_high,
            dual_clip=self.dual_clip,
        )

    def objectives(self) -> tuple[Objective, ...]:
        policy = self.policy_objective()
        streams: frozenset[str] = frozenset({"values"} if self.value_clip is not None else ())
        if self.critic == "own":
            critic = Objective(
                "critic",
                self.critic_terms,
                frozenset({"values"}),
                streams,
                without_advantage=True,
                learning_rate_ratio=self.critic_learning_rate_ratio,
            )
            return policy, critic
        return (
            Objective(
                "policy",
                self.shared_terms,
                policy.needs | {"values"},
                policy.streams | streams,
                without_advantage=True,
            ),
        )

    def critic_terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        old_values_ET = batch["values"] if self.value_clip is not None else None
        return LossTerms(
            value_loss(outputs["values"], batch["targets"], old_values_ET=old_values_ET, clip=self.value_clip)
        )

    def shared_terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        policy, critic = self.terms(outputs, batch), self.critic_terms(outputs, batch)
        return LossTerms(policy.loss + self.value_coef * critic.loss, policy.unclipped_ET)
