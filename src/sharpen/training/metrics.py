"""The metrics of a step, under the names of the field. Each describes this step alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sharpen.data.collate import collate
from sharpen.functional.advantages import zero_spread
from sharpen.functional.losses.kl import k3
from sharpen.functional.losses.ratio import log_ratio, ratio
from sharpen.functional.rounding import rounding_of_sum
from sharpen.methods import LossTerms, Role
from sharpen.rollout.sources import Collected
from sharpen.training.update import Updated
from sharpen.types import Batch, Finish, Group, Outputs

Metrics = dict[str, float]


class TokenStats:
    """Collects the statistics of tokens and sequences over the micro-batches of a step."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}

    def add(self, batch: Batch, outputs: Outputs, terms: LossTerms, *, first_update: bool = True) -> None:
        """Add a micro-batch.

        During the ``first_update`` after a rollout the weights are those that sampled, and the policy's ratio to itself
        is 1 up to rounding. ``ratio/noise`` measures that rounding, and that between rollout and trainer.
        """
        mask = batch.mask_ET

        def keep(name: str, value_ET: Tensor) -> None:
            self._values.setdefault(name, []).append(value_ET.detach()[mask].double().cpu())

        if outputs.logprobs_ET is not None:
            keep("logprob", outputs.logprobs_ET)
            if batch.old_logprobs_ET is not None:
                log_ratio_ET = log_ratio(outputs.logprobs_ET.detach(), batch.old_logprobs_ET) * mask
                keep("ratio", ratio(log_ratio_ET))
                if first_update:
                    self._add("noise/trainer", _log_sequence_ratio(log_ratio_ET, mask).abs())
                if batch.advantages_ET is not None:
                    keep("advantage", batch.advantages_ET)
                if batch.sample_logprobs_ET is not None:
                    mismatch_ET = (batch.old_logprobs_ET - batch.sample_logprobs_ET) * mask
                    keep("mismatch", mismatch_ET.abs())
                    self._add("noise/rollout", _log_sequence_ratio(mismatch_ET, mask).abs())
            if batch.ref_logprobs_ET is not None:
                keep("kl", k3(outputs.logprobs_ET, batch.ref_logprobs_ET))
        exact_ET = outputs.kl_ET if outputs.kl_ET is not None else batch.kl_ET
        if exact_ET is not None:
            keep("kl", exact_ET)
        if outputs.entropy_ET is not None:
            keep("entropy", outputs.entropy_ET)
        if outputs.values_ET is not None and batch.targets_ET is not None:
            keep("value", outputs.values_ET)
            keep("target", batch.targets_ET)
        if terms.unclipped_ET is not None:
            keep("clipped", ~terms.unclipped_ET)
        for name, figure_E in terms.figures.items():
            self._add(f"figure/{name}", figure_E[~figure_E.isnan()])

    def _add(self, name: str, values: Tensor) -> None:
        self._values.setdefault(name, []).append(values.detach().double().cpu())

    def metrics(self) -> Metrics:
        values = {name: torch.cat(parts) for name, parts in self._values.items()}
        values = {name: numbers for name, numbers in values.items() if len(numbers)}
        result: Metrics = {}

        def mean(name: str, key: str) -> None:
            if name in values:
                result[key] = values[name].mean().item()

        mean("logprob", "logprob")
        mean("entropy", "entropy")
        mean("kl", "kl")
        mean("clipped", "clip_fraction")
        if "ratio" in values:
            result["ratio/mean"] = values["ratio"].mean().item()
            # kthvalue, because torch.quantile is limited to 16 million elements.
            rank = math.ceil(0.999 * (len(values["ratio"]) - 1)) + 1
            result["ratio/p99.9"] = values["ratio"].kthvalue(rank).values.item()
        if "advantage" in values:
            result["advantage/mean"] = values["advantage"].mean().item()
            result["advantage/abs"] = values["advantage"].abs().mean().item()
        if "mismatch" in values:
            result["mismatch/mean"] = values["mismatch"].mean().item()
            result["mismatch/max"] = values["mismatch"].max().item()
        noises = [values[name].mean().item() for name in ("noise/trainer", "noise/rollout") if name in values]
        if noises:
            result["ratio/noise"] = max(noises)
        if "value" in values:
            error, target = values["target"] - values["value"], values["target"]
            result["value/mean"] = values["value"].mean().item()
            spread = target.var(correction=0).item()
            if spread > 0:
                result["value/explained_variance"] = 1 - error.var(correction=0).item() / spread
        for name in values:
            if name.startswith("figure/"):
                mean(name, name.removeprefix("figure/"))
        return result


def update_metrics(updates: Mapping[Role, Sequence[Updated]], main: Role) -> Metrics:
    """Losses and gradient norms, averaged over the updates of a step, and how many of the main model's were applied."""
    metrics: Metrics = {}
    for role, done in updates.items():
        prefix = "" if role == main else f"{role}/"
        metrics[f"{prefix}loss"] = sum(u.loss for u in done) / len(done)
        metrics[f"{prefix}grad_norm"] = sum(u.grad_norm for u in done) / len(done)
    metrics["updates/applied"] = sum(u.applied for u in updates[main])
    metrics["updates/skipped"] = sum(not u.applied for u in updates[main])
    return metrics


def sampling_metrics(drawn: Collected, batch: Batch) -> Metrics:
    """`rollout_metrics` over all groups of a step, including those that were set aside; ``batch`` holds the others."""
    if not drawn.set_aside:
        return rollout_metrics(drawn.groups, batch)
    groups = [*drawn.groups, *drawn.set_aside]
    return {
        **rollout_metrics(groups, collate(groups)),
        "groups/set_aside": len(drawn.set_aside) / len(groups),
        "groups/trained": len(drawn.groups),
    }


def _log_sequence_ratio(log_ratio_ET: Tensor, mask_ET: Tensor) -> Tensor:
    """The log of GSPO's ratio, the mean over each sequence's tokens, of the sequences that have any."""
    lengths_E = mask_ET.sum(dim=1)
    return (log_ratio_ET.sum(dim=1) / lengths_E)[lengths_E > 0]


def rollout_metrics(groups: Sequence[Group], batch: Batch) -> Metrics:
    """Lengths, truncation and rewards of the completions of a step."""
    completions = [c for group in groups for c in group.completions]
    lengths = torch.tensor([len(c.token_ids) for c in completions], dtype=torch.float64)
    result = {
        "length/mean": lengths.mean().item(),
        "length/max": lengths.max().item(),
        "truncated": sum(c.finish is Finish.LENGTH for c in completions) / len(completions),
    }
    scores = [s for group in groups for s in group.scores]
    if not scores:
        return result
    rewards = batch.rewards_E[~batch.rewards_E.isnan()]
    if len(rewards):
        result["reward/mean"] = rewards.mean().item()
        result["reward/std"] = rewards.std(correction=0).item()
        flat = zero_spread(
            batch.rewards_E, batch.group_E, rounding_of_sum(batch.rewards_E, batch.rewards_EK, batch.reward_weights)
        )
        result["groups/zero_spread"] = flat.double().mean().item()
    result["reward/failed"] = sum(s.error is not None for s in scores) / len(scores)
    result["reward/timed_out"] = sum(s.timed_out for s in scores) / len(scores)
    result["reward/retries"] = sum(s.retries for s in scores)
    for name in sorted({name for s in scores for name in s.parts}):
        parts = [value for s in scores if (value := s.parts.get(name)) is not None]
        if parts:
            result[f"reward/{name}"] = sum(parts) / len(parts)
    return result
