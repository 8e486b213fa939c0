"""Losses on comparisons and labels: DPO, reward models and process reward models."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

DPOForm = Literal["sigmoid", "ipo"]


def dpo(
    logratio_chosen_E: Tensor,
    logratio_rejected_E: Tensor,
    *,
    beta: float,
    label_smoothing: float = 0.0,
    form: DPOForm = "sigmoid",
) -> Tensor:
    r"""Direct preference optimisation (Rafailov et al. 2023, arXiv 2305.18290, eq. 7), one term per pair.

    .. math:: L = -(1 - ε) \log σ(β h) - ε \log σ(-β h), \quad h = Δ^+ - Δ^-

    With ε > 0, the probability that a label is wrong, it is conservative DPO (Mitchell 2023). The form "ipo" is
    (h − 1/(2β))² (Azar et al. 2023, arXiv 2310.12036, eq. 17), which does not drive h to infinity. The gradient
    coefficients of the tokens of a pair are ±β σ(−βh) for ε = 0.

    Args:
        logratio_chosen_E: Δ⁺ = Σ_t log π − log π_ref of the chosen completion, summed over tokens and not averaged.
        logratio_rejected_E: Δ⁻, the same of the rejected one.
        beta: coefficient of the implicit KL penalty to the reference.

    Raises:
        ValueError: ``label_smoothing`` with "ipo", which has none.
    """
    margin_E = logratio_chosen_E - logratio_rejected_E
    if form == "ipo":
        if label_smoothing:
            raise ValueError("label_smoothing is for form sigmoid; ipo has none")
        return (margin_E - 1.0 / (2.0 * beta)).square()
    logit_E = beta * margin_E
    return -(1.0 - label_smoothing) * F.logsigmoid(logit_E) - label_smoothing * F.logsigmoid(-logit_E)


def bradley_terry(
    scores_E: Tensor, grades_E: Tensor, group_E: Tensor, *, margin: bool = False, noise: float = 0.0
) -> Tensor:
    r"""A reward model's loss on ranked completions (InstructGPT, arXiv 2203.02155, eq. 1), one term per trajectory.

    .. math:: L_w = -\frac1C \sum_l \log P_{wl}, \quad P_{wl} = (1 - η)\, σ(s_w - s_l - m_{wl}) + η/2

    l runs over the completions of w's group with a lower grade, and C is the number of such pairs in the group:
    C(K, 2) minus the ties, which are dropped. The sum over a group is thus that group's loss; a pair is K = 2. All
    completions of a group must be in one call.

    Args:
        scores_E: s, the model's scores, with gradient.
        grades_E: the labelled grades, higher is better; NaN is ignored.
        group_E: the group of each trajectory, integers from 0.
        margin: m is the difference of the grades (Llama 2, arXiv 2307.09288, eq. 2), else 0.
        noise: η, the share of random labels (Christiano et al. 2017, arXiv 1706.03741, section 2.2.3, whose
            share is 0.1).
    """
    beats_EE = beats(grades_E, group_E)
    pairs_E = beats_EE.new_zeros(int(group_E.max()) + 1, dtype=torch.long).index_add(0, group_E, beats_EE.sum(dim=1))
    difference_EE = scores_E[:, None] - scores_E
    if margin:
        difference_EE = difference_EE - (grades_E[:, None] - grades_E).to(scores_E.dtype)
    difference_EE = difference_EE.where(beats_EE, torch.zeros_like(difference_EE))
    if noise:
        loss_EE = -((1.0 - noise) * difference_EE.sigmoid() + noise / 2.0).log()
    else:
        loss_EE = -F.logsigmoid(difference_EE)
    return (loss_EE * beats_EE).sum(dim=1) / pairs_E[group_E].clamp(min=1)


def ranked_groups(grades_E: Tensor, group_E: Tensor) -> Tensor:
    """Which groups have at least one pair that is not tied, [P]. The others have no loss and no weight."""
    winners_E = beats(grades_E, group_E).any(dim=1).long()
    return winners_E.new_zeros(int(group_E.max()) + 1).index_add(0, group_E, winners_E) > 0


def step_loss(scores_ET: Tensor, labels_ET: Tensor) -> Tensor:
    r"""A process reward model's loss, the binary cross-entropy of each step (Math-Shepherd, arXiv 2312.08935, eq. 2).

    .. math:: L_t = -y_t \log σ(s_t) - (1 - y_t) \log(1 - σ(s_t))

    Args:
        scores_ET: s, logits, with gradient.
        labels_ET: y in [0, 1] at the last token of each step, soft labels allowed, and NaN elsewhere.

    Returns:
        [E, T], 0 and without gradient where there is no label.
    """
    labelled_ET = ~labels_ET.isnan()
    nothing_ET = torch.zeros_like(scores_ET)
    labels_ET = labels_ET.to(scores_ET.dtype).where(labelled_ET, nothing_ET)
    # Mask scores and loss: the gradient of 0 times a non-finite score would be NaN.
    loss_ET = F.binary_cross_entropy_with_logits(scores_ET.where(labelled_ET, nothing_ET), labels_ET, reduction="none")
    return loss_ET.where(labelled_ET, nothing_ET)


PAIR_FIGURES = ("pair_accuracy", "pair_margin")


def pair_figures(scores_E: Tensor, beats_EE: Tensor) -> dict[str, Tensor]:
    """Of the pairs that each trajectory should win, the share it wins and its mean margin; NaN without such pairs."""
    difference_EE = scores_E[:, None] - scores_E
    pairs_E = beats_EE.sum(dim=1)
    accuracy_E = ((difference_EE > 0) & beats_EE).sum(dim=1) / pairs_E
    margin_E = (difference_EE * beats_EE).sum(dim=1) / pairs_E
    return dict(zip(PAIR_FIGURES, (accuracy_E, margin_E), strict=True))


def beats(grades_E: Tensor, group_E: Tensor) -> Tensor:
    """[w, l]: w and l are in one group and w has the higher grade; false if either has none."""
    return (group_E[:, None] == group_E) & (grades_E[:, None] > grades_E)
