"""The numbers of a step, under names that people know. All of them are of this step alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sharpen.advantages import zero_spread
from sharpen.losses.kl import k3
from sharpen.methods import Terms
from sharpen.types import Batch, Finish, Group

Metrics = dict[str, float]


class TokenStats:
    """Gathers per-token figures over the micro-batches of a step."""

    def __init__(self) -> None:
        self._values: dict[str, list[Tensor]] = {}

    def add(self, batch: Batch, logprobs_BT: Tensor, entropy_BT: Tensor, terms: Terms) -> None:
        mask = batch.mask_BT

        def keep(name: str, value_BT: Tensor) -> None:
            self._values.setdefault(name, []).append(value_BT[mask].double().cpu())

        keep("logprob", logprobs_BT)
        keep("entropy", entropy_BT)
        if batch.old_logprobs_BT is not None:
            keep("ratio", (logprobs_BT - batch.old_logprobs_BT).exp())
            if batch.sample_logprobs_BT is not None:
                keep("mismatch", (batch.old_logprobs_BT - batch.sample_logprobs_BT).abs())
            if batch.advantages_BT is not None:
                keep("advantage", batch.advantages_BT)
        if batch.ref_logprobs_BT is not None:
            keep("kl", k3(logprobs_BT, batch.ref_logprobs_BT))
        if terms.live_BT is not None:
            keep("clipped", ~terms.live_BT)

    def metrics(self) -> Metrics:
        values = {name: torch.cat(parts) for name, parts in self._values.items()}
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
            result["ratio/p99.9"] = values["ratio"].quantile(0.999, interpolation="higher").item()
        if "advantage" in values:
            result["advantage/mean"] = values["advantage"].mean().item()
            result["advantage/abs"] = values["advantage"].abs().mean().item()
        if "mismatch" in values:
            result["mismatch/mean"] = values["mismatch"].mean().item()
            result["mismatch/max"] = values["mismatch"].max().item()
        return result


def rollout_metrics(groups: Sequence[Group], batch: Batch) -> Metrics:
    """Lengths, endings and rewards of the completions of a step."""
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
    rewards = batch.rewards_B[~batch.rewards_B.isnan()]
    if len(rewards):
        result["reward/mean"] = rewards.mean().item()
        result["reward/std"] = rewards.std(correction=0).item()
        flat = zero_spread(batch.rewards_B, batch.group_B)
        result["groups/zero_spread"] = flat.double().mean().item()
    result["reward/failed"] = sum(s.error is not None for s in scores) / len(scores)
    for name in sorted({name for s in scores for name in s.parts}):
        parts = [value for s in scores if (value := s.parts.get(name)) is not None]
        if parts:
            result[f"reward/{name}"] = sum(parts) / len(parts)
    return result
