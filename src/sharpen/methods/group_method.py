"""What GRPO and its variants share: several completions per prompt, and advantages relative to the group."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field, model_validator
from torch import Tensor

from sharpen.batch import Batch
from sharpen.functional.advantages import (
    Spread,
    decoupled_advantages,
    group_advantages,
    process_advantages,
    soft_overlong,
    zero_spread,
)
from sharpen.functional.losses import reduce
from sharpen.functional.rounding import rounding, rounding_of_sum
from sharpen.methods.fields import GroupSize
from sharpen.methods.policy_method import PolicyMethod
from sharpen.rollout.sources import CurrentPolicy, Differing, DynamicSampling, Source
from sharpen.settings import Effect


class GroupMethod(PolicyMethod):
    """A method whose advantages are rewards relative to the other completions of the prompt."""

    differences: ClassVar[tuple[str, ...]] = (
        "`std_eps: 0.0`, and a group of rewards that are equal up to rounding has Â = 0. To the standard "
        "deviation TRL adds 1e-4, verl 1e-6, OpenRLHF 1e-9. `ddof: 1` is also theirs.",
        "combine normalise_then_sum: TRL adds 1e-4 to both standard deviations here too.",
    )

    group_size: GroupSize = 8
    supervision: Literal["outcome", "process", "own_step"] = "outcome"
    """outcome: one reward per completion. process: one reward per step, normalised over all steps of the group; a
    token's advantage is the sum over the steps that end at or after it. own_step: that of the token's own step."""
    combine: Literal["sum_then_normalise", "normalise_then_sum"] = "sum_then_normalise"
    """How several rewards are combined. sum_then_normalise: their weighted sum is normalised within the group.
    normalise_then_sum: each reward is normalised within the group; their weighted sum is then divided by its standard
    deviation over the batch (GDPO, arXiv 2601.05242)."""
    std: Spread = "group"
    """Standard deviation that the centred reward is divided by: of the group, of the batch, or none."""
    ddof: Literal[0, 1] = 1
    """Degrees of freedom subtracted in that standard deviation; the paper leaves it open."""
    std_eps: float = Field(0.0, ge=0, le=1000)
    """Added to the standard deviation."""
    dynamic_sampling: bool = False
    """Set aside groups whose rewards are all equal, and keep sampling until the step is full."""
    max_rounds: int = Field(10, ge=1)
    """Rounds of dynamic sampling after which the step trains on the groups that it has."""
    overlong_share: float = Field(0.0, ge=0, le=1)
    """Soft overlong punishment over this last share of rollout.max_new_tokens; 0: none."""

    effects: ClassVar[tuple[Effect, ...]] = (
        Effect("ddof", "with std group or batch", lambda s: s.std != "none"),
        Effect("std_eps", "with std group or batch", lambda s: s.std != "none"),
        Effect("max_rounds", "with dynamic_sampling", lambda s: s.dynamic_sampling),
    )

    @model_validator(mode="after")
    def _check_group_settings(self) -> GroupMethod:
        if self.group_size == 1:
            raise ValueError("group_size 1 leaves every advantage at 0; use at least 2")
        if self.supervision != "outcome":
            if self.std == "batch":
                raise ValueError(f"supervision {self.supervision} needs std group or none, not batch")
            if self.beta and self.kl.placement == "reward":
                raise ValueError(f"with supervision {self.supervision}, kl.placement must be loss")
            if self.overlong_share:
                raise ValueError(f"with supervision {self.supervision}, overlong_share must be 0")
        if self.decoupled:
            self._check_decoupled_settings()
        return self

    @property
    def decoupled(self) -> bool:
        """Whether each of several rewards is normalised before they are summed."""
        return self.combine == "normalise_then_sum"

    def _check_decoupled_settings(self) -> None:
        wanted = {"supervision": "outcome", "std": "group", "std_eps": 0.0, "overlong_share": 0.0}
        for name, value in wanted.items():
            if (given := getattr(self, name)) != value:
                raise ValueError(f"combine normalise_then_sum needs {name} {value}, not {given}")
        if self.beta and self.kl.placement == "reward":
            raise ValueError(
                "combine normalise_then_sum needs kl.placement loss: it cannot normalise a KL in the reward"
            )

    def source(self) -> Source:
        source = CurrentPolicy(self.group_size)
        if not self.dynamic_sampling:
            return source
        differ: Differing = "steps" if self.needs_steps else "parts" if self.decoupled else "total"
        return DynamicSampling(source, self.max_rounds, differ)

    @property
    def needs_steps(self) -> bool:
        return self.supervision != "outcome"

    def advantages(self, batch: Batch) -> Tensor:
        if self.supervision != "outcome":
            return self._process_advantages(batch)
        if self.decoupled:
            return self._decoupled_advantages(batch)
        rewards_E, rounding_E = batch.rewards_E - self.kl_cost(batch).sum(dim=1), self.reward_rounding(batch)
        if self.overlong_share:
            cache = max(1, round(self.overlong_share * batch.completion_limit))
            lengths_E = batch.mask_ET.sum(dim=1)
            punishment_E = soft_overlong(lengths_E, limit=batch.completion_limit, cache=cache)
            rewards_E, rounding_E = rewards_E + punishment_E, rounding_E + rounding(punishment_E)
        advantages_E = group_advantages(
            rewards_E, batch.group_E, std=self.std, ddof=self.ddof, eps=self.std_eps, rounding_E=rounding_E
        )
        if self.dynamic_sampling:
            # After the last round, groups of equal rewards may be left; do not learn from their length penalties alone.
            equal_P = zero_spread(
                batch.rewards_E, batch.group_E, rounding_of_sum(batch.rewards_E, batch.rewards_EK, batch.reward_weights)
            )
            advantages_E = advantages_E.masked_fill(equal_P[batch.group_E], 0.0)
        return advantages_E[:, None] * batch.mask_ET

    def _decoupled_advantages(self, batch: Batch) -> Tensor:
        rewards_EK, weights = batch.rewards_EK, batch.reward_weights
        if rewards_EK is None:
            rewards_EK, weights = batch.rewards_E[:, None], (1.0,)
        advantages_E = decoupled_advantages(rewards_EK, batch.group_E, rewards_EK.new_tensor(weights), ddof=self.ddof)
        return advantages_E[:, None] * batch.mask_ET

    def _process_advantages(self, batch: Batch) -> Tensor:
        if "step_rewards" not in batch:
            # The reward scores steps, but it applied to no completion of this rollout.
            return batch.mask_ET * 0.0
        return process_advantages(
            batch["step_rewards"],
            batch.mask_ET,
            batch.group_E,
            mode="to_go" if self.supervision == "process" else "own",
            std="group" if self.std == "group" else "none",
            ddof=self.ddof,
            eps=self.std_eps,
        )

    def weights(self, batch: Batch) -> Tensor:
        return reduce.per_sequence(batch.mask_ET, batch.group_E)
