"""SFT: demonstrations × no reward × advantage 1 × log-likelihood."""

from typing import Literal

from torch import Tensor

from sharpen.batch import Batch, Outputs
from sharpen.functional.losses import reduce
from sharpen.functional.losses.policy import policy_gradient
from sharpen.methods.method import LossTerms, Method, Objective, UnifiedView
from sharpen.rollout.sources import Demonstrations, Source


class SFT(Method):
    """Supervised fine-tuning: J = the mean of log π(o_t | q, o_<t) over the tokens that the demonstrator wrote."""

    name = "sft"
    unified_view = UnifiedView(
        source="demonstrations",
        reward="none",
        advantage="1",
        loss="log-likelihood, mean over tokens",
        gradient_coefficient="1",
        paper="InstructGPT, Ouyang et al. 2022, arXiv 2203.02155",
    )

    reduction: Literal["tokens_of_batch", "per_sequence"] = "tokens_of_batch"
    """Which losses count equally: those of all tokens, or of all prompts and of all demonstrations of a prompt."""

    def source(self) -> Source:
        return Demonstrations()

    def advantages(self, batch: Batch) -> Tensor:
        return batch.mask_ET.float()

    def weights(self, batch: Batch) -> Tensor:
        trained_ET = batch.mask_ET & (batch["advantages"] != 0)
        if self.reduction == "per_sequence":
            return reduce.per_sequence(trained_ET, batch.group_E)
        return reduce.tokens_of_batch(trained_ET)

    def objectives(self) -> tuple[Objective, ...]:
        return (Objective("policy", self.terms, figures=()),)

    def terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        return LossTerms(policy_gradient(outputs["logprobs"], batch["advantages"]))
