"""The settings of the penalty on the KL to the reference, and of the reference itself."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sharpen.methods.coefficient import Rule
from sharpen.settings import Settings


class KL(Settings):
    """How far the policy may go from the reference: how that is estimated, where it acts, what the reference is."""

    estimator: Literal["k1", "k2", "k3", "weighted_k3", "exact"] = "k3"
    """Per token; exact sums over the whole vocabulary, weighted_k3 is π/π_old · k3."""
    placement: Literal["loss", "reward"] = "loss"
    """Whether it is a term of the loss, or taken off the reward of the policy that sampled."""
    warmup_steps: int = Field(0, ge=0)
    """Training steps over which beta rises linearly from 0."""
    target: float | None = Field(None, gt=0)
    """The KL, in nats per token, that beta is adapted to; null: beta stays."""
    rule: Rule = "proportional"
    """How it is adapted: proportional (Ziegler et al. 2019), or double (and halve; Schulman et al. 2017)."""
    horizon: int = Field(10_000, ge=1)
    """Completions over which the proportional rule acts."""
    reference: Literal["fixed", "reset", "average"] = "fixed"
    """The initial policy; the policy as it was at the last multiple of reset_every; or a moving average of it."""
    reset_every: int = Field(400, ge=1)
    """Steps between resets."""
    decay: float = Field(0.992, ge=0, lt=1)
    """Share of the moving average that each step keeps."""

    @model_validator(mode="after")
    def _possible(self) -> KL:
        if self.estimator == "weighted_k3" and self.placement == "reward":
            raise ValueError("weighted_k3 is for the loss: where the reward is given the ratio is 1, so use k3")
        return self
