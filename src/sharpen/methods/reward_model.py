"""Reward models: ranked completions, or marked steps × no reward × a score that agrees with the labels."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from sharpen.batch import Batch, Outputs
from sharpen.functional.losses import reduce
from sharpen.functional.losses.preference import beats, bradley_terry, pair_figures, ranked_groups, step_loss
from sharpen.functional.returns import at_last
from sharpen.methods.method import LossTerms, Method, Objective, UnifiedView
from sharpen.rollout.sources import MarkedSteps, Preferences, Source


class RewardModel(Method):
    """An outcome reward model, trained on ranked completions.

    J = 1/C(K,2) Σ log σ(s(o⁺) − s(o⁻)) over all pairs of a prompt's K completions, ties left out. The score s is
    read at the last token. Saved as an `AutoModelForSequenceClassification` with one label.
    """

    name = "reward_model"
    unified_view = UnifiedView(
        source="ranked completions",
        reward="none",
        advantage="none",
        loss="log σ(difference of the scores), mean over a prompt's pairs",
        gradient_coefficient="±σ(−(s⁺ − s⁻)) of the scores",
        paper="InstructGPT, Ouyang et al. 2022, arXiv 2203.02155",
    )
    differences: ClassVar[tuple[str, ...]] = (
        "`centre: true` shifts the scores once, after training. TRL can add c · mean (s⁺ + s⁻)² to the loss "
        "instead (center_rewards_coefficient), by default not.",
        "`margin: false`; if true it is the difference of the grades. TRL subtracts the column margin wherever "
        "the data has it.",
        "The mean over a prompt's pairs, then over prompts. TRL takes pairs as rows, and the mean over all pairs.",
    )

    margin: bool = False
    """Require a score difference that is larger by the difference of the grades (Llama 2)."""
    noise: float = Field(0.0, ge=0, lt=1)
    """Share of the rankings assumed to be random (Christiano et al. 2017: 0.1)."""
    centre: bool = True
    """After training, shift the scores to average 0 on demonstrations (without any: on the best of each group)."""

    def source(self) -> Source:
        return Preferences()

    def advantages(self, batch: Batch) -> Tensor:
        return batch.mask_ET.float()

    def weights(self, batch: Batch) -> Tensor:
        return reduce.groups_mean(ranked_groups(batch.rewards_E, batch.group_E))[batch.group_E]

    def objectives(self) -> tuple[Objective, ...]:
        return (Objective("outcome_reward_model", self.terms, frozenset({"scores"}), atom="group"),)

    def terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        scores_E = at_last(outputs["scores"], batch.mask_ET)
        grades_E, group_E = batch.rewards_E, batch.group_E
        loss_E = bradley_terry(scores_E, grades_E, group_E, margin=self.margin, noise=self.noise)
        figures = {"score": scores_E.detach(), **pair_figures(scores_E.detach(), beats(grades_E, group_E))}
        return LossTerms(loss_E, figures=figures)

    @property
    def normalises_scores(self) -> bool:
        return self.centre


class ProcessRewardModel(Method):
    """A process reward model, trained on steps that are marked as right (1) or wrong (0), or with a share between.

    J = y log σ(s_t) + (1 − y) log(1 − σ(s_t)) at the last token t of each step, mean over all steps. Saved as an
    `AutoModelForTokenClassification` with one label.
    """

    name = "process_reward_model"
    unified_view = UnifiedView(
        source="completions with marked steps",
        reward="none",
        advantage="none",
        loss="cross-entropy at the end of each step",
        gradient_coefficient="y − σ(s) of the scores",
        paper="Math-Shepherd, Wang et al. 2023, arXiv 2312.08935",
    )

    def source(self) -> Source:
        return MarkedSteps()

    def advantages(self, batch: Batch) -> Tensor:
        return self._ends(batch).float()

    def weights(self, batch: Batch) -> Tensor:
        return reduce.tokens_of_batch(self._ends(batch))

    def objectives(self) -> tuple[Objective, ...]:
        return (Objective("process_reward_model", self.terms, frozenset({"scores"})),)

    def terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        scores_ET, labels_ET = outputs["scores"], batch["step_rewards"]
        ends_ET = self._ends(batch)
        right_ET = ((scores_ET.detach() > 0) == (labels_ET > 0.5)) & ends_ET
        accuracy_E = right_ET.sum(dim=1) / ends_ET.sum(dim=1)
        return LossTerms(step_loss(scores_ET, labels_ET), figures={"step_accuracy": accuracy_E})

    @staticmethod
    def _ends(batch: Batch) -> Tensor:
        return ~batch["step_rewards"].isnan() & batch.mask_ET
