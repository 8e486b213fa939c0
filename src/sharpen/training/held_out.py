"""Measures a model on held-out completions: the loss and the method's own metrics."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from sharpen.errors import NonFiniteError
from sharpen.evaluation.estimators import Estimate
from sharpen.evaluation.runner import estimate_measure
from sharpen.methods import Method
from sharpen.training.annotate import Annotator
from sharpen.training.coefficients import Coefficients
from sharpen.training.method_batch import batch_of
from sharpen.training.update import forward_microbatches, with_weights
from sharpen.types import Group


@torch.no_grad()
def measure_groups(method: Method, annotator: Annotator, groups: Sequence[Group]) -> dict[str, Estimate]:
    """``loss`` and the metrics of the method's first objective, each a mean over groups with its interval."""
    objective = method.objectives()[0]
    batch = batch_of(method, annotator, groups, Coefficients(method.coefficients()).values)
    loss_P = np.zeros(len(groups))
    figures: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    parts = forward_microbatches(
        annotator.models[objective.model],
        objective,
        with_weights(method, batch),
        annotator.temperature,
        annotator.limits,
        annotator.named(objective.against) if "exact_kl" in objective.needs else None,
    )
    for microbatch in parts:
        part, terms = microbatch.batch, microbatch.terms
        loss_E = (
            (part["weights"] * terms.loss).flatten(1).sum(dim=1)
            if terms.loss.dim() > 1
            else part["weights"] * terms.loss
        )
        np.add.at(loss_P, part.group_E.cpu().numpy(), len(groups) * loss_E.double().cpu().numpy())
        for name, figure_E in terms.figures.items():
            figures.setdefault(name, []).append((part.group_E.cpu(), figure_E.double().cpu()))
    if not np.isfinite(loss_P).all():
        raise NonFiniteError(f"the {objective.model}'s loss on held-out rows is {loss_P.mean():g}")
    return {
        "loss": estimate_measure("loss", loss_P),
        **{name: estimate_measure(name, _mean_per_group(found, len(groups))) for name, found in figures.items()},
    }


def _mean_per_group(found: Sequence[tuple[torch.Tensor, torch.Tensor]], groups: int) -> np.ndarray:
    group_N, figure_N = (torch.cat(parts) for parts in zip(*found, strict=True))
    known = ~figure_N.isnan()
    total_P = torch.zeros(groups, dtype=torch.float64).index_add(0, group_N[known], figure_N[known])
    count_P = group_N[known].bincount(minlength=groups)
    return (total_P[count_P > 0] / count_P[count_P > 0]).numpy()
