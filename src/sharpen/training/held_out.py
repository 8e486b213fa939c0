"""Measures a model on held-out completions: the loss and the method's own metrics."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch

from sharpen.batch import Batch
from sharpen.errors import NonFiniteError
from sharpen.evaluation.estimators import Estimate
from sharpen.evaluation.runner import estimate_measure, sources_of
from sharpen.methods import Method
from sharpen.training.annotate import Annotator
from sharpen.training.coefficients import Coefficients
from sharpen.training.method_batch import batch_of
from sharpen.training.update import forward_microbatches, with_weights
from sharpen.types import Group


@torch.no_grad()
def measure_groups(method: Method, annotator: Annotator, groups: Sequence[Group]) -> dict[str, Estimate]:
    """``loss`` and the metrics of the method's first objective, each a mean over groups with its interval.

    With several data sources, these are over the groups of all, and of each again as ``<source>/<measure>``, as if
    there were no others.
    """
    objective = method.objectives()[0]
    batch = batch_of(method, annotator, groups, Coefficients(method.coefficients()).values)
    places = {
        source: np.array([p for p, group in enumerate(groups) if group.prompt.source == source])
        for source in sources_of(groups)
    }
    weighted = with_weights(method, batch)
    if places:
        weighted = weighted.with_streams(own_weights=_weights_by_source(method, batch, places.values()))
    loss_P, own_loss_P = np.zeros(len(groups)), np.zeros(len(groups))
    figures: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    parts = forward_microbatches(
        annotator.models[objective.model],
        objective,
        weighted,
        annotator.temperature,
        annotator.limits,
        annotator.named(objective.against) if "exact_kl" in objective.needs else None,
    )
    for microbatch in parts:
        part, loss = microbatch.batch, microbatch.terms.loss
        group_E = part.group_E.cpu().numpy()
        np.add.at(loss_P, group_E, len(groups) * _per_trajectory(part["weights"] * loss))
        if places:
            # A weight of 0 marks what another micro-batch counts.
            own_weights = part["own_weights"].where(part["weights"] != 0, 0.0)
            np.add.at(own_loss_P, group_E, _per_trajectory(own_weights * loss))
        for name, figure_E in microbatch.terms.figures.items():
            figures.setdefault(name, []).append((part.group_E.cpu(), figure_E.double().cpu()))
    if not np.isfinite(loss_P).all():
        raise NonFiniteError(f"the {objective.model}'s loss on held-out rows is {loss_P.mean():g}")
    means_P = {name: _mean_per_group(found, len(groups)) for name, found in figures.items()}
    measures = _measures({"loss": loss_P, **means_P})
    for source, own in places.items():
        of_source = {"loss": len(own) * own_loss_P[own], **{name: mean_P[own] for name, mean_P in means_P.items()}}
        measures |= {f"{source}/{name}": measure for name, measure in _measures(of_source).items()}
    return measures


def _measures(values_P: Mapping[str, np.ndarray]) -> dict[str, Estimate]:
    """NaN marks a group without a value."""
    return {
        name: estimate_measure(name, of_name[~np.isnan(of_name)])
        for name, of_name in values_P.items()
        if not np.isnan(of_name).all()
    }


def _per_trajectory(loss: torch.Tensor) -> np.ndarray:
    loss_E = loss.flatten(1).sum(dim=1) if loss.dim() > 1 else loss
    return loss_E.double().cpu().numpy()


def _weights_by_source(method: Method, batch: Batch, places: Collection[np.ndarray]) -> torch.Tensor:
    """The weight of each loss term among those of its source, whose groups have these numbers."""
    own_weights = torch.zeros_like(method.weights(batch))
    for own in places:
        index_E = torch.isin(batch.group_E, torch.from_numpy(own)).nonzero().squeeze(1)
        alone = batch.select(index_E)
        alone = replace(alone, group_E=torch.searchsorted(torch.from_numpy(own), alone.group_E))
        own_weights[index_E] = method.weights(alone)
    return own_weights


def _mean_per_group(found: Sequence[tuple[torch.Tensor, torch.Tensor]], groups: int) -> np.ndarray:
    """The mean of a figure over the trajectories of each group, NaN where it has none."""
    group_N, figure_N = (torch.cat(parts) for parts in zip(*found, strict=True))
    known = ~figure_N.isnan()
    total_P = torch.zeros(groups, dtype=torch.float64).index_add(0, group_N[known], figure_N[known])
    return (total_P / group_N[known].bincount(minlength=groups)).numpy()
