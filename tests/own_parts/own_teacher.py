"""On-policy distillation from outside the package: Â_t = log ν − log π of the drawn token, ν a teacher."""

from torch import Tensor

from sharpen.batch import Batch
from sharpen.functional.losses import policy, reduce
from sharpen.methods.policy_method import PolicyMethod
from sharpen.methods.streams import Producer, logprobs_of
from sharpen.rollout.sources import CurrentPolicy


class Distillation(PolicyMethod):
    name = "distillation"
    teacher: str

    def source(self) -> CurrentPolicy:
        return CurrentPolicy(group_size=2)

    @property
    def needs_reward(self) -> bool:
        return False

    @property
    def streams(self) -> frozenset[str]:
        return super().streams | {"old_logprobs", "teacher_logprobs"}

    def frozen_models(self) -> dict[str, str]:
        return {"teacher": self.teacher}

    def producers(self) -> tuple[Producer, ...]:
        return (logprobs_of("teacher", "teacher_logprobs"),)

    def advantages(self, batch: Batch) -> Tensor:
        return batch["teacher_logprobs"] - batch["old_logprobs"]

    def weights(self, batch: Batch) -> Tensor:
        return reduce.tokens_of_batch(batch.mask_ET)

    def surrogate(self, logprobs_ET: Tensor, batch: Batch) -> tuple[Tensor, None]:
        return policy.policy_gradient(logprobs_ET, batch["advantages"]), None
