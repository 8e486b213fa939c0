"""The metrics of a step, under the names of the field. Each describes this step alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from sharpen.batch import Batch
from sharpen.data.collate import collate
from sharpen.functional.advantages import zero_spread
from sharpen.functional.rounding import rounding_of_sum
from sharpen.methods import Role
from sharpen.rollout.sources import Collected
from sharpen.types import End, Group

Metrics = dict[str, float]


@dataclass(frozen=True, slots=True)
class Updated:
    """What one optimizer step did. ``applied`` is False if nothing had a gradient, so that nothing changed.

    ``tokens`` counts the tokens computed, prefixes included.
    """

    loss: float
    grad_norm: float
    applied: bool
    tokens: int


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


OF_WORK = ("preemptions", "evictions", "reused_tokens")
"""What an engine did beside plain decoding, as metrics."""


def sampling_metrics(drawn: Collected, batch: Batch, *, conversations: bool = False) -> Metrics:
    """`rollout_metrics` over all groups of a step, including those that were set aside; ``batch`` holds the others.

    With several data sources also those of each, see `metrics_by_source`.
    """
    work = {f"rollout/{name}": float(drawn.work[name]) for name in OF_WORK if drawn.work.get(name)}
    by_source = metrics_by_source(drawn, conversations=conversations)
    if not drawn.set_aside:
        return rollout_metrics(drawn.groups, batch, conversations=conversations) | work | by_source
    groups = [*drawn.groups, *drawn.set_aside]
    return {
        **rollout_metrics(groups, collate(groups), conversations=conversations),
        **work,
        **_set_aside(drawn),
        **by_source,
    }


def metrics_by_source(drawn: Collected, *, conversations: bool = False) -> Metrics:
    """`rollout_metrics` of each data source that gave a prompt, and how many, as ``source/<name>/<metric>``.

    Empty in a run with one source.
    """
    metrics: Metrics = {}
    for name in dict.fromkeys(group.prompt.source for group in (*drawn.groups, *drawn.set_aside)):
        if not name:
            continue
        trained, set_aside = ([g for g in gs if g.prompt.source == name] for gs in (drawn.groups, drawn.set_aside))
        own, groups = Collected(trained, set_aside), [*trained, *set_aside]
        of_source = {
            "prompts": len(groups),
            **rollout_metrics(groups, collate(groups), conversations=conversations),
            **(_set_aside(own) if drawn.set_aside else {}),
        }
        metrics |= {f"source/{name}/{metric}": value for metric, value in of_source.items()}
    return metrics


def _set_aside(drawn: Collected) -> Metrics:
    count = len(drawn.groups) + len(drawn.set_aside)
    return {"groups/set_aside": len(drawn.set_aside) / count, "groups/trained": len(drawn.groups)}


def rollout_times(collected: Sequence[Collected]) -> Metrics:
    """The seconds that each part of sampling and scoring took, and the tokens drawn per second."""
    seconds: dict[str, float] = {}
    for one in collected:
        for part, of_part in one.seconds.items():
            seconds[part] = seconds.get(part, 0.0) + of_part
    metrics = {f"time/{part}_s": of_part for part, of_part in seconds.items() if of_part}
    if seconds.get("rollout"):
        groups = [group for one in collected for group in (*one.groups, *one.set_aside)]
        tokens = sum(trajectory.drawn for group in groups for trajectory in group.trajectories)
        metrics["tokens_per_s/rollout"] = tokens / seconds["rollout"]
    return metrics


def rollout_metrics(groups: Sequence[Group], batch: Batch, *, conversations: bool = False) -> Metrics:
    """Lengths, truncation and rewards of the completions of a step, and their turns if they are ``conversations``."""
    completions = [c for group in groups for c in group.trajectories]
    lengths = torch.tensor([c.drawn for c in completions], dtype=torch.float64)
    result = {
        "length/mean": lengths.mean().item(),
        "length/max": lengths.max().item(),
        "truncated": sum(c.truncated for c in completions) / len(completions),
    }
    if conversations:
        turns = [sum(message["role"] == "assistant" for message in c.messages) for c in completions]
        result["turns/mean"] = sum(turns) / len(turns)
        result["turns/out_of_turns"] = sum(c.end is End.OUT_OF_TURNS for c in completions) / len(completions)
        result["samples/mean"] = sum(len(c.samples) for c in completions) / len(completions)
        result["environment/failed"] = sum(c.end is End.ENVIRONMENT_FAILED for c in completions) / len(completions)
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
    result["reward/failed"] = sum(s.error is not None for s in scores) / len(completions)
    result["reward/timed_out"] = sum(s.timed_out for s in scores) / len(completions)
    result["reward/retries"] = sum(s.retries for s in scores)
    for name in sorted({name for s in scores for name in s.parts}):
        parts = [value for s in scores if (value := s.parts.get(name)) is not None]
        if parts:
            result[f"reward/{name}"] = sum(parts) / len(parts)
    return result
