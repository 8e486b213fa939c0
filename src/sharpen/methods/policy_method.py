"""What all policy-gradient methods share: KL penalty, entropy bonus, loss mask, updates per rollout."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import Field, field_validator
from torch import Tensor

from sharpen.batch import Batch, Need, Outputs
from sharpen.functional.losses.kl import k1, k2, k3, weighted_k3
from sharpen.functional.losses.policy import truncated_importance_weights
from sharpen.functional.rounding import rounding, rounding_of_sum
from sharpen.methods.coefficient import AdaptiveCoefficient
from sharpen.methods.fields import Minibatches
from sharpen.methods.kl import KL
from sharpen.methods.method import LossTerms, Method, Objective, Old
from sharpen.settings import Effect

SAMPLED = {"k1": k1, "k2": k2, "k3": k3}


class PolicyMethod(Method):
    """A policy-gradient method on sampled completions."""

    differences: ClassVar[tuple[str, ...]] = (
        "A completion that mask_truncated or a failed reward takes out of the loss does not count in its group's "
        "G: 1/G' over the G' that are left. TRL's losses grpo and dr_grpo divide by all G, so that masking makes "
        "the gradient smaller.",
        "The entropy of a token has the weight of its loss term, 1/G · 1/|o| in GRPO. TRL takes the mean over all "
        "tokens, whatever the loss.",
        "`tis_cap: null`: no correction, as in verl and OpenRLHF. TRL corrects rollouts of vLLM by default: it "
        "multiplies the terms of a completion by Π_t π_old/π_rollout, or by 0 where that is above 3.",
        "Rewards are used as they are. OpenRLHF clips them, less their baseline, to [−10, 10] by default.",
    )

    beta: float = Field(0.0, ge=0, le=1000)
    """Coefficient of the KL penalty to the reference; with 0 no reference is loaded."""
    kl: KL = KL()
    """Settings of the KL penalty; those not given keep the method's defaults."""
    entropy_coef: float = Field(0.0, ge=0, le=1000)
    """Coefficient of the entropy bonus, per token."""
    mask_truncated: bool = False
    """Leave truncated completions out of the loss; their rewards still count in the baseline."""
    old: Old = "learner"
    """π_old. learner: the policy at the start of the step. rollout: the policy that drew the tokens, as its engine
    computed it."""
    tis_cap: float | None = Field(None, ge=1, le=1000)
    """Truncated importance sampling: weight tokens by min(π_old / π_rollout, cap), for tokens that an older version or
    an engine with other numerics drew. It weights the policy gradient alone, not a KL in the loss or the entropy."""
    updates_per_rollout: int = Field(1, ge=1, le=100_000)
    """μ, passes over each rollout."""
    minibatches: Minibatches = 1

    effects: ClassVar[tuple[Effect, ...]] = (
        Effect("kl", "with beta above 0", lambda s: s.beta > 0),
        # π_old is π_rollout otherwise.
        Effect("tis_cap", "with old learner", lambda s: s.old == "learner"),
    )

    @field_validator("kl", mode="before")
    @classmethod
    def _with_method_defaults(cls, given: Any) -> Any:
        """Settings of the section that are not given keep the method's defaults, such as estimator and placement."""
        return {**cls.model_fields["kl"].default.model_dump(), **given} if isinstance(given, Mapping) else given

    @property
    def old_from(self) -> Old:
        return self.old

    @property
    def corrects_stale(self) -> bool:
        return self.tis_cap is not None or self.old == "rollout"

    @property
    def passes_and_minibatches(self) -> tuple[int, int]:
        return self.updates_per_rollout, self.minibatches

    def coefficients(self) -> Mapping[str, AdaptiveCoefficient]:
        if not self.beta:
            return {}
        kl = self.kl
        return {"beta": AdaptiveCoefficient(self.beta, kl.warmup_steps, kl.target, kl.rule, kl.horizon)}

    @property
    def kl_settings(self) -> KL:
        return self.kl

    @property
    def streams(self) -> frozenset[str]:
        if not self.beta or self.kl.placement == "loss":
            return frozenset()
        return frozenset({"kl"} if self.kl.estimator == "exact" else {"old_logprobs", "ref_logprobs"})

    def kl_cost(self, batch: Batch) -> Tensor:
        """β · KL(π_old ‖ π_ref) of each token, [E, T]; 0 unless the reward is reduced by it."""
        if not self.beta or self.kl.placement == "loss":
            return batch.mask_ET.double() * 0.0
        if self.kl.estimator == "exact":
            kl_ET = batch["kl"]
        else:
            kl_ET = SAMPLED[self.kl.estimator](batch["old_logprobs"], batch["ref_logprobs"])
        return batch.coefficients["beta"] * kl_ET.double() * batch.mask_ET

    def reward_rounding(self, batch: Batch) -> Tensor:
        """Bound on the rounding error of each completion's reward, from which the KL is subtracted, [E]."""
        if not self.beta or self.kl.placement == "loss":
            return rounding_of_sum(batch.rewards_E, batch.rewards_EK, batch.reward_weights)
        if self.kl.estimator == "exact":
            # A difference of log-probabilities, which are of the order of 1 nat.
            kl_ET = rounding(1.0 + batch["kl"])
        else:
            kl_ET = rounding(batch["old_logprobs"]) + rounding(batch["ref_logprobs"])
        return rounding_of_sum(batch.rewards_E, batch.rewards_EK, batch.reward_weights) + batch.coefficients["beta"] * (
            kl_ET.double() * batch.mask_ET
        ).sum(dim=1)

    def loss_mask(self, batch: Batch) -> Tensor:
        return batch.mask_ET & ~batch.truncated_E[:, None] if self.mask_truncated else batch.mask_ET

    @abstractmethod
    def surrogate(self, logprobs_ET: Tensor, batch: Batch) -> tuple[Tensor, Tensor | None]:
        """The policy-gradient loss per token, and which terms are unclipped; None if the loss does not clip."""

    def importance_weights(self, batch: Batch, cap: float) -> Tensor:
        """min(π_old / π_rollout, cap), by which the loss of each token is multiplied, [E, T]."""
        return truncated_importance_weights(batch["old_logprobs"], batch["rollout_logprobs"], cap=cap)

    def objectives(self) -> tuple[Objective, ...]:
        return (self.policy_objective(),)

    def policy_objective(self) -> Objective:
        needs: set[Need] = {"logprobs"}
        streams: set[str] = {"old_logprobs"}
        if self.tis_cap is not None:
            streams.add("rollout_logprobs")
        if self.entropy_coef:
            needs.add("entropy")
        in_loss = self.beta > 0 and self.kl.placement == "loss"
        if in_loss:
            if self.kl.estimator == "exact":
                needs.add("exact_kl")
            else:
                streams.add("ref_logprobs")
        return Objective(
            "policy",
            self.terms,
            frozenset(needs),
            frozenset(streams),
            without_advantage=in_loss or self.entropy_coef > 0,
        )

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        if self.beta and self.kl.placement == "loss" and self.kl.estimator == "k1":
            return [
                "the expected gradient of k1 in the loss is zero, so it constrains nothing: use estimator k2 or "
                "weighted_k3 (reverse KL), k3 (forward KL) or exact, or placement reward"
            ]
        return []

    def terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        logprobs_ET = outputs["logprobs"]
        loss_ET, unclipped_ET = self.surrogate(logprobs_ET, batch)
        if self.tis_cap is not None:
            loss_ET = loss_ET * self.importance_weights(batch, self.tis_cap)
        if self.beta and self.kl.placement == "loss":
            loss_ET = loss_ET + batch.coefficients["beta"] * self._kl_term(logprobs_ET, outputs, batch)
        if self.entropy_coef:
            loss_ET = loss_ET - self.entropy_coef * outputs["entropy"]
        return LossTerms(loss_ET, unclipped_ET)

    def _kl_term(self, logprobs_ET: Tensor, outputs: Outputs, batch: Batch) -> Tensor:
        if self.kl.estimator == "exact":
            return outputs["exact_kl"]
        if self.kl.estimator == "weighted_k3":
            return weighted_k3(logprobs_ET, batch["old_logprobs"], batch["ref_logprobs"])
        return SAMPLED[self.kl.estimator](logprobs_ET, batch["ref_logprobs"])
