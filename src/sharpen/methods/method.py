"""What a method is: the binding of a source, a reward, an advantage and a loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pydantic import model_serializer
from torch import Tensor

from sharpen.batch import Atom, Batch, Need, Outputs
from sharpen.methods.coefficient import AdaptiveCoefficient
from sharpen.methods.kl import KL
from sharpen.methods.streams import Producer
from sharpen.rollout.sources import Source
from sharpen.settings import Settings

Old = Literal["learner", "rollout"]

Role = Literal["policy", "critic", "outcome_reward_model", "process_reward_model"]
"""The models that can be trained: the policy, a critic, or a reward model."""


@dataclass(frozen=True, slots=True)
class LossTerms:
    """The loss terms before they are weighted and summed, [E, T] or [E].

    ``unclipped_ET`` marks the terms that carry a gradient. ``figures`` are metrics of each trajectory, [E], NaN where
    one does not apply.
    """

    loss: Tensor
    unclipped_ET: Tensor | None = None
    figures: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Objective:
    """A loss on the outputs of one model.

    ``needs`` is what the model's forward pass must return, ``streams`` what the batch must already hold, and
    ``against`` the model that an exact KL is taken to. ``atom`` is the unit that is never split between micro-batches.
    A trajectory too long for one is split if ``whole`` says what ``terms`` then needs of the whole trajectory, [E]
    each, computed before without gradient; otherwise it is an error. ``figures`` names the figures that ``terms``
    gives, so that ``checkpoint.best`` can be checked before a run is written; None: not said. With
    ``without_advantage``, tokens with advantage 0 still have a gradient; otherwise trajectories of such tokens are not
    computed.
    """

    model: Role
    terms: Callable[[Outputs, Batch], LossTerms]
    needs: frozenset[Need] = frozenset({"logprobs"})
    streams: frozenset[str] = frozenset()
    against: str = "reference"
    atom: Atom = "token"
    whole: Callable[[Outputs, Batch], Mapping[str, Tensor]] | None = None
    figures: tuple[str, ...] | None = None
    without_advantage: bool = False
    learning_rate_ratio: float = 1.0


@dataclass(frozen=True, slots=True)
class Mixed:
    """A second source with a loss of its own: another method, ``coefficient`` times whose loss joins every update.

    Each step takes ``prompts_per_step`` of its prompts, at least one for each update of a pass, which share them. It
    reads completions of the data, and its one objective trains the model of the main method's first.
    """

    method: Method
    coefficient: float
    prompts_per_step: int


@dataclass(frozen=True, slots=True)
class UnifiedView:
    """The method in the terms of DeepSeekMath's unified view; objectives are maximised."""

    source: str
    reward: str
    advantage: str
    loss: str
    gradient_coefficient: str
    paper: str


OF_ITS_OWN = UnifiedView(*("of its own",) * 5, "not named")
"""Of a method that does not say."""


class Method(Settings, ABC):
    """One method. Its fields are its settings; the trainer calls its members in the order in which they stand here."""

    name: ClassVar[str]
    unified_view: ClassVar[UnifiedView] = OF_ITS_OWN
    differences: ClassVar[tuple[str, ...]] = ()
    """Where the method or its defaults differ from those of other libraries (`sharpen.methods.describe.PEERS`)."""

    @abstractmethod
    def source(self) -> Source:
        """Where prompts and completions come from."""

    @property
    def needs_reward(self) -> bool:
        """Whether completions have to be scored."""
        return self.source().reads == "prompts"

    @property
    def needs_steps(self) -> bool:
        """Whether the reward has to score each step of a completion."""
        return False

    @property
    def makes_a_policy(self) -> bool:
        """Whether the trained model generates tokens; otherwise it gives scores."""
        return self.objectives()[0].model == "policy"

    @property
    def passes_and_minibatches(self) -> tuple[int, int]:
        """Passes over each rollout, and optimizer steps per pass."""
        return 1, 1

    def coefficients(self) -> Mapping[str, AdaptiveCoefficient]:
        """Coefficients that change during training, by name; the batch holds their current values."""
        return {}

    @property
    def streams(self) -> frozenset[str]:
        """What the batch must hold before advantages are computed."""
        return frozenset()

    def producers(self) -> tuple[Producer, ...]:
        """The method's own producers of streams, beside `sharpen.training.streams`."""
        return ()

    def frozen_models(self) -> Mapping[str, str]:
        """Models that the producers and objectives use and that are not trained, such as teachers: name to path."""
        return {}

    def mixed(self) -> Mixed | None:
        """A second source that joins every update."""
        return None

    @property
    def old_from(self) -> Old:
        """Where π_old comes from: the learner at the start of the step, or the policy that drew the tokens."""
        return "learner"

    @property
    def corrects_stale(self) -> bool:
        """Whether the loss corrects for tokens that an older version of the policy drew."""
        return False

    @abstractmethod
    def advantages(self, batch: Batch) -> Tensor:
        """The advantage of each token, [E, T], computed over the whole rollout."""

    def targets(self, batch: Batch) -> Tensor | None:
        """The critic's targets, one per token, [E, T]; None without a critic."""
        return None

    def loss_mask(self, batch: Batch) -> Tensor:
        """The tokens that are trained on, [E, T]; by default all that count in the baseline."""
        return batch.mask_ET

    @abstractmethod
    def weights(self, batch: Batch) -> Tensor:
        """The weight of each loss term, [E, T] or [E], computed over the whole optimizer step."""

    @abstractmethod
    def objectives(self) -> tuple[Objective, ...]:
        """The losses, the main model's first. Each accepts any micro-batch of the step."""

    @property
    def normalises_scores(self) -> bool:
        """Whether the trained model's scores are finally shifted to average 0 on demonstrations."""
        return False

    def warnings(self, metrics: Mapping[str, float]) -> list[str]:
        """Problems with the method's settings that the metrics of a step reveal."""
        return []

    @property
    def needs_reference(self) -> bool:
        """Whether the method or its second source uses a reference, which is then loaded."""
        wanted = self.streams.union(*(o.streams for o in self.objectives()))
        exact = any("exact_kl" in o.needs and o.against == "reference" for o in self.objectives())
        mixed = self.mixed()
        of_second = mixed is not None and mixed.method.needs_reference
        return exact or of_second or not wanted.isdisjoint(("ref_logprobs", "kl"))

    @property
    def kl_settings(self) -> KL:
        """Settings of the reference, if there is one."""
        return KL()

    @property
    def critic_start(self) -> str | None:
        """The model that the critic starts from, if the settings name one."""
        return None

    @model_serializer(mode="wrap")
    def _with_name(self, serialize: Any) -> dict[str, Any]:
        return {"name": self.name, **serialize(self)}
