"""Settings of the KL penalty and of the reference."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator

from sharpen.methods.coefficient import Rule
from sharpen.settings import Effect, Name, Settings


class KL(Settings):
    """The KL penalty, if beta is above 0: its estimator and placement, how beta changes, and what the reference is."""

    differences: ClassVar[tuple[str, ...]] = (
        "`estimator: k3`, the paper's, which adds β (r − 1) to the gradient coefficient, r = π_ref/π. TRL's default "
        "is weighted_k3, ρ · k3 (use_bias_correction_kl), which adds β ρ log r: another gradient at ρ = 1 too. In the "
        "loss verl's default is k3; OpenRLHF's is k1, in the reward.",
        "Beyond log r = 20, k3 goes on along its tangent. verl caps k3 at 10, and OpenRLHF every estimator: a token "
        "beyond has no gradient.",
    )

    estimator: Literal["k1", "k2", "k3", "weighted_k3", "exact"] = "k3"
    """Estimator per token. exact sums over the whole vocabulary; weighted_k3 is π/π_old · k3."""
    placement: Literal["loss", "reward"] = "loss"
    """loss: a term of the loss. reward: subtracted from the reward, where it is that of π_old."""
    warmup_steps: int = Field(0, ge=0)
    """Training steps over which beta rises linearly from 0."""
    target: float | None = Field(None, gt=0, le=1000)
    """KL in nats per token that beta is adapted to; null: beta is constant."""
    rule: Rule = "proportional"
    """How beta is adapted: proportional (Ziegler et al. 2019), or double (or halve; Schulman et al. 2017)."""
    horizon: int = Field(10_000, ge=1)
    """Horizon of the proportional rule, in completions."""
    reference: Literal["fixed", "reset", "average"] = "fixed"
    """fixed: the initial policy. reset: the policy at the last multiple of reset_every. average: its moving average."""
    path: Name | None = None
    """Model that a fixed reference is loaded from; null: the initial policy."""
    reset_every: int = Field(400, ge=1)
    """Training steps between resets."""
    decay: float = Field(0.992, ge=0, lt=1)
    """Share of the moving average kept at each step."""

    effects = (
        Effect("rule", "with target", lambda s: s.target is not None),
        Effect(
            "horizon", "with target and rule proportional", lambda s: s.target is not None and s.rule == "proportional"
        ),
        # The others follow the policy.
        Effect("path", "with reference fixed", lambda s: s.reference == "fixed"),
        Effect("reset_every", "with reference reset", lambda s: s.reference == "reset"),
        Effect("decay", "with reference average", lambda s: s.reference == "average"),
    )

    @property
    def reads_old(self) -> bool:
        """Whether π_old is read token by token; an exact one is that of whole distributions."""
        return self.estimator == "weighted_k3" or (self.placement == "reward" and self.estimator != "exact")

    @model_validator(mode="after")
    def _check_settings(self) -> KL:
        if self.estimator == "weighted_k3" and self.placement == "reward":
            raise ValueError("weighted_k3 is for the loss: in the reward its ratio is always 1, so use k3")
        return self
