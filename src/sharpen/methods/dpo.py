"""DPO: ranked completions × no reward × better or worse × log-sigmoid of the difference of the log-ratios."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field
from torch import Tensor

from sharpen.batch import Batch, Outputs
from sharpen.functional.losses import reduce
from sharpen.functional.losses.preference import PAIR_FIGURES, DPOForm, beats, dpo, pair_figures, ranked_groups
from sharpen.methods.method import LossTerms, Method, Objective, UnifiedView
from sharpen.rollout.sources import Preferences, Source
from sharpen.settings import Effect


class DPO(Method):
    """Direct Preference Optimization.

    J = E log σ(β (h(o⁺) − h(o⁻))), h(o) = Σ_t log π(o_t | q, o_<t) − log π_ref(o_t | q, o_<t). Of K ranked completions,
    the mean over all pairs that are not tied. The reference's log-probabilities are computed once per completion.
    """

    name = "dpo"
    unified_view = UnifiedView(
        source="ranked completions",
        reward="none",
        advantage="better or worse",
        loss="log σ(β · difference of the log-ratios)",
        gradient_coefficient="±β · σ(−u), u = β(h(o⁺) − h(o⁻))",
        paper="DPO, Rafailov et al. 2023, arXiv 2305.18290",
    )
    differences: ClassVar[tuple[str, ...]] = (
        "Form ipo: h sums the log-ratios of a completion's tokens, as in OpenRLHF. TRL divides by the number of "
        "tokens, (h⁺/|o⁺| − h⁻/|o⁻| − 1/(2β))²: for completions of one length L, its loss with beta is 1/L² times "
        "this one with beta/L.",
        "label_smoothing ε: −(1 − ε) log σ(u) − ε log σ(−u), as in OpenRLHF. TRL's loss sigmoid has none; its "
        "loss robust is (−(1 − ε) log σ(u) + ε log σ(−u))/(1 − 2ε).",
        "Of K ranked completions: the mean over a prompt's pairs, then over prompts. TRL and OpenRLHF take pairs "
        "as rows, and the mean over all pairs.",
    )

    beta: float = Field(0.1, gt=0, le=1000)
    """Coefficient of the implicit KL penalty to the reference, which is the initial policy."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of the preferences assumed to be the wrong way round (conservative DPO)."""
    form: DPOForm = "sigmoid"
    """sigmoid, or ipo: (h⁺ − h⁻ − 1/(2β))², which does not drive the difference to infinity."""

    effects = (Effect("label_smoothing", "with form sigmoid", lambda s: s.form == "sigmoid"),)

    def source(self) -> Source:
        return Preferences()

    def advantages(self, batch: Batch) -> Tensor:
        beats_EE = beats(batch.rewards_E, batch.group_E)
        sign_E = (beats_EE.sum(dim=1) - beats_EE.sum(dim=0)).sign()
        return sign_E[:, None] * batch.mask_ET

    def weights(self, batch: Batch) -> Tensor:
        return reduce.groups_mean(ranked_groups(batch.rewards_E, batch.group_E))[batch.group_E]

    def objectives(self) -> tuple[Objective, ...]:
        streams: frozenset[str] = frozenset({"ref_logprobs"})
        return (
            Objective(
                "policy", self.terms, streams=streams, atom="group", figures=PAIR_FIGURES, without_advantage=True
            ),
        )

    def terms(self, outputs: Outputs, batch: Batch) -> LossTerms:
        logratio_E = ((outputs["logprobs"] - batch["ref_logprobs"]) * batch.mask_ET).sum(dim=1)
        beats_EE = beats(batch.rewards_E, batch.group_E)
        winner_M, loser_M = beats_EE.nonzero(as_tuple=True)
        loss_M = dpo(
            logratio_E[winner_M],
            logratio_E[loser_M],
            beta=self.beta,
            label_smoothing=self.label_smoothing,
            form=self.form,
        )
        groups = int(batch.group_E.max()) + 1
        pairs_P = batch.group_E[winner_M].bincount(minlength=groups)
        loss_E = logratio_E.new_zeros(len(batch)).index_add(0, winner_M, loss_M) / pairs_P[batch.group_E].clamp(min=1)
        implicit_E = self.beta * logratio_E.detach()
        return LossTerms(loss_E, figures=pair_figures(implicit_E, beats_EE))
