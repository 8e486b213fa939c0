"""Rejection-sampling fine-tuning: a policy is fine-tuned on those of its own answers that are right."""

from pydantic import Field
from torch import Tensor

from sharpen.batch import Batch
from sharpen.functional.advantages import accepted
from sharpen.methods.fields import GroupSize
from sharpen.methods.method import UnifiedView
from sharpen.methods.sft import SFT
from sharpen.rollout.sources import CurrentPolicy, InitialPolicy, Source
from sharpen.settings import Effect

_AT_MOST = Effect("at_most", "below group_size", lambda s: s.at_most is None or s.at_most < s.group_size)


class RFT(SFT):
    """SFT on the right answers of the initial policy, which are sampled once, before the first step.

    J = the mean of I(o is right) · log π(o_t | q, o_<t), o ~ π_initial.
    """

    name = "rft"
    unified_view = UnifiedView(
        source="initial policy, G per prompt, kept if right",
        reward="any",
        advantage="1 if right, else 0",
        loss="log-likelihood, mean over tokens",
        gradient_coefficient="I(o is right)",
        paper="Yuan et al. 2023, arXiv 2308.01825",
    )

    group_size: GroupSize = 8
    threshold: float = 1.0
    """A completion is right when its reward is at least this."""
    at_most: int | None = Field(4, ge=1)
    """Right completions kept per prompt; null: all."""
    unique: bool = True
    """Keep identical completions of a prompt only once."""
    prompts: int | None = Field(None, ge=1)
    """Number of prompts to sample for, from the first on; null: all."""

    effects = (_AT_MOST,)

    def source(self) -> Source:
        return InitialPolicy(self.group_size, self.prompts, self.threshold, self.at_most, self.unique)


class OnlineRFT(SFT):
    """SFT on the right answers of the current policy, which are sampled anew at every step.

    J = the mean of I(o is right) · log π(o_t | q, o_<t), o ~ π.
    """

    name = "online_rft"
    unified_view = UnifiedView(
        source="current policy, G per prompt, kept if right",
        reward="any",
        advantage="1 if right, else 0",
        loss="log-likelihood, mean over the tokens of the right",
        gradient_coefficient="I(o is right)",
        paper="DeepSeekMath, Shao et al. 2024, arXiv 2402.03300",
    )

    group_size: GroupSize = 8
    threshold: float = 1.0
    """A completion is right when its reward is at least this."""
    at_most: int | None = Field(None, ge=1)
    """Right completions kept per prompt; null: all."""
    unique: bool = True
    """Keep identical completions of a prompt only once."""

    effects = (_AT_MOST,)

    def source(self) -> Source:
        return CurrentPolicy(self.group_size)

    def advantages(self, batch: Batch) -> Tensor:
        accepted_E = accepted(
            batch.rewards_E,
            batch.group_E,
            batch.tokens_ET,
            batch.mask_ET,
            threshold=self.threshold,
            at_most=self.at_most,
            unique=self.unique,
            prefix_ET=batch.prefix_ET,
        )
        return (accepted_E[:, None] & batch.mask_ET).float()
