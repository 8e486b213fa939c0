"""GSPO: GRPO with one ratio for the whole completion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from sharpen.batch import Batch, Outputs
from sharpen.functional.losses.policy import (
    mean_log_ratio,
    mean_per_trajectory,
    sequence_surrogate,
    sequence_token_surrogate,
)
from sharpen.methods.fields import DualClip, EpsHigh, EpsLow
from sharpen.methods.group_method import GroupMethod
from sharpen.methods.method import Objective, UnifiedView

WHOLE = "whole_log_ratio"
"""The stream of log s of trajectories that are cut between micro-batches, NaN for all others."""
WHOLE_WEIGHT = "whole_importance_weight"
"""The stream of their importance weights, with form sequence and a tis_cap."""


class GSPO(GroupMethod):
    """Group Sequence Policy Optimization.

    J = E 1/G Σ_i min(s_i Â_i, clip(s_i, 1 − ε_low, 1 + ε_high) Â_i), s_i = (π(o_i|q) / π_old(o_i|q))^(1/|o_i|).
    The form per token replaces s_i by sg[s_i] · π/sg[π]: the same gradient where Â is constant along the completion.
    With tis_cap, form sequence multiplies the term of a completion by the mean of its tokens' weights.
    """

    name = "gspo"
    unified_view = UnifiedView(
        source="current policy, G per prompt",
        reward="any",
        advantage="group z-score",
        loss="clipped surrogate with the completion's length-normalised ratio s",
        gradient_coefficient="unclipped · s · Â",
        paper="GSPO, Zheng et al. 2025, arXiv 2507.18071",
    )
    differences: ClassVar[tuple[str, ...]] = (
        "`eps_low: 0.0003` and `eps_high: 0.0004` are the paper's. TRL (importance_sampling_level sequence), verl "
        "(loss_mode gspo) and OpenRLHF (policy_loss_type gspo) keep 0.2 by default.",
        "Every completion weighs 1/G, as in OpenRLHF. TRL's and verl's defaults average over the batch's tokens, "
        "which weights a completion by its length.",
    )

    eps_low: EpsLow = 3e-4
    eps_high: EpsHigh = 4e-4
    dual_clip: DualClip = None
    form: Literal["sequence", "token"] = "sequence"
    """token allows advantages that vary along the completion, as with process supervision."""
    minibatches: int = Field(4, ge=1)
    """Optimizer steps per pass; each takes a share of the prompts. The paper takes 4."""

    @model_validator(mode="after")
    def _check_form(self) -> GSPO:
        if self.form == "sequence" and self.needs_steps:
            raise ValueError(f"supervision {self.supervision} needs form token: form sequence has one advantage")
        return self

    def surrogate(self, logprobs_ET: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        surrogate = sequence_surrogate if self.form == "sequence" else sequence_token_surrogate
        return surrogate(
            logprobs_ET,
            batch["old_logprobs"],
            batch["advantages"],
            batch.mask_ET,
            eps_low=self.eps_low,
            eps_high=self.eps_high,
            dual_clip=self.dual_clip,
            whole_log_ratio_E=batch.streams.get(WHOLE),
        )

    def policy_objective(self) -> Objective:
        return replace(super().policy_objective(), atom="trajectory", whole=self.whole)

    def whole(self, outputs: Outputs, batch: Batch) -> Mapping[str, Tensor]:
        """log s of trajectories that are cut between micro-batches, and the weight of their terms."""
        found = {WHOLE: mean_log_ratio(outputs["logprobs"], batch["old_logprobs"], batch.mask_ET)}
        if self.tis_cap is not None and self.form == "sequence":
            weights_ET = super().importance_weights(batch, self.tis_cap)
            found[WHOLE_WEIGHT] = mean_per_trajectory(weights_ET, batch.mask_ET)
        return found

    def importance_weights(self, batch: Batch, cap: float) -> Tensor:
        """Of each token. In form sequence all tokens have the same term, whose weight is in effect their mean: that
        of a trajectory which is cut, whose terms then differ, is computed beforehand."""
        weights_ET = super().importance_weights(batch, cap)
        whole_E = batch.streams.get(WHOLE_WEIGHT)
        if whole_E is None:
            return weights_ET
        return torch.where(whole_E.isnan()[:, None], weights_ET, whole_E[:, None])

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        noise, bound = metrics.get("ratio/noise", 0.0), min(self.eps_low, self.eps_high)
        if noise <= bound / 2:
            return super().warnings(metrics)
        return [
            *super().warnings(metrics),
            f"rounding alone changes the log of a completion's ratio by {noise:.1e} on average, and the clip range is "
            f"{bound:.1e}, so rounding decides what is clipped: compute in float32, use longer completions, or raise "
            "method.eps_low and method.eps_high",
        ]
