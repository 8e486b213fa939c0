"""SFT: demonstrations × no reward × advantage 1 × log-likelihood."""

from typing import Literal

from torch import Tensor

from sharpen.losses import reduce
from sharpen.methods.method import Method, Terms
from sharpen.sources import Demonstrations, Source
from sharpen.types import Batch


class SFT(Method):
    """Supervised fine-tuning: the mean of −log π(o_t | q, o_<t) over the tokens that the demonstrator wrote."""

    name = "sft"
    paper = "Ouyang et al. 2022, arXiv 2203.02155"
    gradient_coefficient = "1"
    needs_reward = False

    reduction: Literal["tokens_of_batch", "per_sequence"] = "tokens_of_batch"
    """Whether every token weighs the same, or every demonstration."""

    def source(self) -> Source:
        return Demonstrations()

    def advantages(self, batch: Batch) -> Tensor:
        return batch.mask_BT.float()

    def weights(self, batch: Batch) -> Tensor:
        if self.reduction == "per_sequence":
            return reduce.per_sequence(batch.mask_BT, batch.group_B)
        return reduce.tokens_of_batch(batch.mask_BT)

    def terms(self, logprobs_BT: Tensor, batch: Batch) -> Terms:
        return Terms(-logprobs_BT)
