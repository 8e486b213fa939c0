"""What a method is: the binding of a source, a reward, an advantage and a loss."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import model_serializer
from torch import Tensor

from sharpen.settings import Settings
from sharpen.sources import Source
from sharpen.types import Batch


@dataclass(frozen=True, slots=True)
class Terms:
    """The loss before it is weighed and summed, one term per token, and where terms carry a gradient."""

    loss_BT: Tensor
    live_BT: Tensor | None = None


class Method(Settings, ABC):
    """One method. Its settings are its fields; the trainer calls the parts in the order in which they stand here."""

    name: ClassVar[str]
    paper: ClassVar[str]
    gradient_coefficient: ClassVar[str]
    needs_reward: ClassVar[bool]

    @abstractmethod
    def source(self) -> Source:
        """Where prompts and completions come from."""

    @property
    def passes_and_minibatches(self) -> tuple[int, int]:
        """Passes over each rollout, and the optimizer steps that each pass is divided into."""
        return 1, 1

    @property
    def needs_old_logprobs(self) -> bool:
        """Whether the loss compares the policy with the one that the rollout began with."""
        return False

    @property
    def needs_reference(self) -> bool:
        """Whether the loss compares the policy with a frozen reference, which is then loaded."""
        return False

    @property
    def trains_without_advantage(self) -> bool:
        """Whether a token with advantage 0 still has a gradient, by another term; else it costs no compute."""
        return self.needs_reference

    @abstractmethod
    def advantages(self, batch: Batch) -> Tensor:
        """What the rewards mean for each token, [B, T], from the whole rollout."""

    @abstractmethod
    def weights(self, batch: Batch) -> Tensor:
        """The weight of each token's term, [B, T], from the whole optimizer step."""

    @abstractmethod
    def terms(self, logprobs_BT: Tensor, batch: Batch) -> Terms:
        """The loss per token, for any part of the step."""

    @model_serializer(mode="wrap")
    def _with_name(self, serialize: Any) -> dict[str, Any]:
        return {"name": self.name, **serialize(self)}
