"""What a method is: the binding of a source, a reward, an advantage and a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import model_serializer
from torch import Tensor

from sharpen.methods.coefficient import AdaptiveCoefficient
from sharpen.methods.kl import KL
from sharpen.rollout.sources import Source
from sharpen.settings import Settings
from sharpen.types import Annotation, Batch, Need, Outputs

Role = Literal["policy", "critic", "outcome_reward_model", "process_reward_model"]
"""The models that can be trained: a language model, or one that gives scores."""


@dataclass(frozen=True, slots=True)
class LossTerms:
    """The loss before it is weighted and summed, [B, T] or [B]; which of its terms carry a gradient; and figures of
    each sequence for people to read, [B], NaN where one does not apply."""

    loss: Tensor
    unclipped_BT: Tensor | None = None
    figures: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss over what one model says of the completions.

    ``needs`` is what the model's forward pass has to give, ``annotations`` what must have been added to the batch
    before. ``atom`` is what no cut into micro-batches goes through. Where ``without_advantage``, a token with
    advantage 0 still has a gradient; else it costs no compute.
    """

    model: Role
    terms: Callable[[Outputs, Batch], LossTerms]
    needs: frozenset[Need] = frozenset({"logprobs"})
    annotations: frozenset[Annotation] = frozenset()
    atom: Literal["sequence", "group"] = "sequence"
    without_advantage: bool = False
    learning_rate_ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class UnifiedView:
    """The method in the words of DeepSeekMath's unified view; formulas are maximised."""

    source: str
    reward: str
    advantage: str
    loss: str
    gradient_coefficient: str
    paper: str


class Method(Settings, ABC):
    """One method. Its settings are its fields; the trainer calls the parts in the order in which they stand here."""

    name: ClassVar[str]
    unified_view: ClassVar[UnifiedView]

    @abstractmethod
    def source(self) -> Source:
        """Where prompts and completions come from."""

    @property
    def needs_reward(self) -> bool:
        """Whether somebody has to say what completions are worth."""
        return self.source().reads == "prompts"

    @property
    def needs_steps(self) -> bool:
        """Whether the reward has to say what each step of a completion is worth."""
        return False

    @property
    def makes_a_policy(self) -> bool:
        """Whether what comes out writes tokens, or gives scores."""
        return self.objectives()[0].model == "policy"

    @property
    def passes_and_minibatches(self) -> tuple[int, int]:
        """Passes over each rollout, and the optimizer steps that each pass is divided into."""
        return 1, 1

    def coefficients(self) -> Mapping[str, AdaptiveCoefficient]:
        """Strengths that change while training, by name; their present values come with the batch."""
        return {}

    @property
    def annotations(self) -> frozenset[Annotation]:
        """What the advantages need to be added to the batch first."""
        return frozenset()

    @abstractmethod
    def advantages(self, batch: Batch) -> Tensor:
        """What the rewards mean for each token, [B, T], from the whole rollout."""

    def targets(self, batch: Batch) -> Tensor | None:
        """What a critic is to predict before each token, [B, T]."""
        return None

    def loss_mask(self, batch: Batch) -> Tensor:
        """The tokens that are trained on, [B, T], where not all that count for the baseline are."""
        return batch.mask_BT

    @abstractmethod
    def weights(self, batch: Batch) -> Tensor:
        """The weight of each term of the loss, [B, T] or [B], from the whole optimizer step."""

    @abstractmethod
    def objectives(self) -> tuple[Objective, ...]:
        """The losses, the run's own model first. Each takes any part of the step."""

    @property
    def normalises_scores(self) -> bool:
        """Whether the scores of the model that comes out are shifted, at the end, to average 0 on demonstrations."""
        return False

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        """What in a step's figures says that the method cannot work as it is set."""
        return []

    @property
    def needs_reference(self) -> bool:
        """Whether anything is compared with a reference, which is then loaded."""
        wanted = self.annotations.union(*(o.annotations for o in self.objectives()))
        exact = any("exact_kl" in o.needs for o in self.objectives())
        return exact or not wanted.isdisjoint(("ref_logprobs", "kl"))

    @property
    def kl_settings(self) -> KL:
        """What the reference is, where there is one."""
        return KL()

    @property
    def critic_start(self) -> str | None:
        """The model that a critic begins as, where the settings name one."""
        return None

    @model_serializer(mode="wrap")
    def _with_name(self, serialize: Any) -> dict[str, Any]:
        return {"name": self.name, **serialize(self)}
