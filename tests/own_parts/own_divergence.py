"""Distillation over the whole vocabulary: the loss is KL(π ‖ ν), taken inside the forward pass and never stored."""

from own_teacher import Distillation
from torch import Tensor

from sharpen.batch import Batch, Outputs
from sharpen.methods import LossTerms, Objective


class FullDistillation(Distillation):
    name = "full_distillation"

    @property
    def streams(self) -> frozenset[str]:
        return frozenset()

    def advantages(self, batch: Batch) -> Tensor:
        return batch.mask_ET * 0.0

    def objectives(self) -> tuple[Objective, ...]:
        needs = frozenset({"exact_kl"})
        return (Objective("policy", self.divergence, needs, against="teacher", without_advantage=True),)

    def divergence(self, outputs: Outputs, batch: Batch) -> LossTerms:
        return LossTerms(outputs["exact_kl"])
