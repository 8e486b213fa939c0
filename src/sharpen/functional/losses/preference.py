"""Losses on comparisons and labels: DPO, reward models and process reward models."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

DPOForm = Literal["sigmoid", "ipo"]


def dpo(
    logratio_chosen_B: Tensor,
    logratio_rejected_B: Tensor,
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
        logratio_chosen_B: Δ⁺ = Σ_t log π − log π_ref of the chosen completion, summed over tokens and not averaged.
        logratio_rejected_B: Δ⁻, the same of the rejected one.
        beta: coefficient of the implicit KL penalty to the reference.

    Raises:
        ValueError: ``label_smoothing`` with "ipo", which has none.
    """
    margin_B = logratio_chosen_B - logratio_rejected_B
    if form == "ipo":
        if label_smoothing:
            raise ValueError("label_smoothing is for form sigmoid; ipo has none")
        return (margin_B - 1.0 / (2.0 * beta)).square()
    logit_B = beta * margin_B
    return -(1.0 - label_smoothing) * F.logsigmoid(logit_B) - label_smoothing * F.logsigmoid(-logit_B)


def bradley_terry(
    scores_B: Tensor, grades_B: Tensor, group_B: Tensor, *, margin: bool = False, noise: float = 0.0
) -> Tensor:
    r"""A reward model's loss on ranked completions (InstructGPT, arXiv 2203.02155, eq. 1), one term per sequence.

    .. math:: L_w = -\frac1C \sum_l \log P_{wl}, \quad P_{wl} = (1 - η)\, σ(s_w - s_l - m_{wl}) + η/2

    l runs over the completions of w's group with a lower grade, and C is the number of such pairs in the group:
    C(K, 2) minus the ties, which are dropped. The sum over a group is thus that group's loss; a pair is K = 2. All
    completions of a group must be in one call.

    Args:
        scores_B: s, the model's scores, with gradient.
        grades_B: the labelled grades, higher is better; NaN is ignored.
        group_B: the group of each sequence, integers from 0.
        margin: m is the difference of the grades (Llama 2, arXiv 2307.09288, eq. 2), else 0.
        noise: η, the share of random labels (Christiano et al. 2017, arXiv 1706.03741, section 2.2.3, whose
            share is 0.1).
    """
    beats_BB = beats(grades_B, group_B)
    pairs_B = beats_BB.new_zeros(int(group_B.max()) + 1, dtype=torch.long).index_add(0, group_B, beats_BB.sum(dim=1))
    difference_BB = scores_B[:, None] - scores_B
    if margin:
        difference_BB = difference_BB - (grades_B[:, None] - grades_B).to(scores_B.dtype)
    difference_BB = difference_BB.where(beats_BB, torch.zeros_like(difference_BB))
    if noise:
        loss_BB = -((1.0 - noise) * difference_BB.sigmoid() + noise / 2.0).log()
    else:
        loss_BB = -F.logsigmoid(difference_BB)
    return (loss_BB * beats_BB).sum(dim=1) / pairs_B[group_B].clamp(min=1)


def ranked_groups(grades_B: Tensor, group_B: Tensor) -> Tensor:
    """Which groups have at least one pair that is not tied, [P]. The others have no loss and no weight."""
    winners_B = beats(grades_B, group_B).any(dim=1).long()
    return winners_B.new_zeros(int(group_B.max()) + 1).index_add(0, group_B, winners_B) > 0


def step_loss(scores_BT: Tensor, labels_BT: Tensor) -> Tensor:
    r"""A process reward model's loss, the binary cross-entropy of each step (Math-Shepherd, arXiv 2312.08935, eq. 2).

    .. math:: L_t = -y_t \log σ(s_t) - (1 - y_t) \log(1 - σ(s_t))

    Args:
        scores_BT: s, logits, with gradient.
        labels_BT: y in [0, 1] at the last token of each step, soft labels allowed, and NaN elsewhere.

    Returns:
        [B, T], 0 and without gradient where there is no label.
    """
    labelled_BT = ~labels_BT.isnan()
    nothing_BT = torch.zeros_like(scores_BT)
    labels_BT = labels_BT.to(scores_BT.dtype).where(labelled_BT, nothing_BT)
    # Mask scores and loss: the gradient of 0 times a non-finite score would be NaN.
    loss_BT = F.binary_cross_entropy_with_logits(scores_BT.where(labelled_BT, nothing_BT), labels_BT, reduction="none")
    return loss_BT.where(labelled_BT, nothing_BT)


def pair_figures(scores_B: Tensor, beats_BB: Tensor) -> dict[str, Tensor]:
    """Of the pairs that each sequence should win, the share it wins and its mean margin; NaN without such pairs."""
    difference_BB = scores_B[:, None] - scores_B
    pairs_B = beats_BB.sum(dim=1)
    return {
        "pair_accuracy": ((difference_BB > 0) & beats_BB).sum(dim=1) / pairs_B,
        "pair_margin": (difference_BB * beats_BB).sum(dim=1) / pairs_B,
    }


def beats(grades_B: Tensor, group_B: Tensor) -> Tensor:
    """[w, l]: w and l are in one group and w has the higher grade; false if either has none."""
    return (group_B[:, None] == group_B) & (grades_B[:, None] > grades_B)
