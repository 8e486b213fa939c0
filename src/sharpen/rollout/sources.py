"""Sources of training groups: the data, the current policy, or the initial policy."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Protocol

import torch

from sharpen.data.collate import collate
from sharpen.errors import RewardError
from sharpen.functional.advantages import accepted, zero_spread
from sharpen.functional.rounding import rounding_of_sum
from sharpen.types import Group, Prompt, Reads

Differing = Literal["total", "steps", "parts"]
"""Which rewards must differ within a group to give a gradient: the totals, those of steps, or any one of several."""


class Collector(Protocol):
    """Gives a source its prompts and groups."""

    def first_prompts(self, at_most: int | None) -> list[Prompt]:
        """The first prompts of the data, of several data sources each in its share; None: all."""
        ...

    def next_prompts(self, count: int) -> list[Prompt]: ...

    def next_groups(self, count: int) -> list[Group]:
        """The next groups of the data, or of the kept groups."""
        ...

    def collect(self, prompts: list[Prompt], group_size: int) -> Collected:
        """``group_size`` completions of the current policy for each prompt, scored if there is a reward."""
        ...

    def keep(self, groups: list[Group]) -> None:
        """Store these groups on disk. From now on `next_groups` returns them."""
        ...


@dataclass(frozen=True, slots=True)
class Collected:
    """The groups of one step, and groups that were sampled but are not trained on.

    ``seconds`` is the time of sampling and scoring by part: ``rollout``, ``reward``, ``reward/<name>``. ``work`` counts
    what the engine did beside plain decoding, such as ``reused_tokens``.
    """

    groups: list[Group]
    set_aside: list[Group] = field(default_factory=list)
    seconds: Mapping[str, float] = field(default_factory=dict)
    work: Mapping[str, int] = field(default_factory=dict)


class Source(ABC):
    """Where the groups of a step come from."""

    reads: ClassVar[Reads]
    on_policy: ClassVar[bool] = False
    """Whether a step's completions are sampled from the policy that the step updates."""

    def prepare(self, collector: Collector) -> list[Group]:
        """Runs once, before the first step. Returns the groups that it sampled."""
        return []

    @abstractmethod
    def collect(self, collector: Collector, prompts: int) -> Collected:
        """The groups of one step."""


class _Data(Source):
    def collect(self, collector: Collector, prompts: int) -> Collected:
        return Collected(collector.next_groups(prompts))


class Demonstrations(_Data):
    """Completions of the data, to be imitated."""

    reads = "demonstrations"


class Preferences(_Data):
    """Ranked completions of the same prompt."""

    reads = "preferences"


class MarkedSteps(_Data):
    """Completions whose steps are labelled as right or wrong."""

    reads = "steps"


@dataclass(frozen=True)
class CurrentPolicy(Source):
    """``group_size`` completions of the current policy for each prompt, scored."""

    reads = "prompts"
    on_policy = True

    group_size: int

    def collect(self, collector: Collector, prompts: int) -> Collected:
        return collector.collect(collector.next_prompts(prompts), self.group_size)


@dataclass(frozen=True)
class DynamicSampling(Source):
    """DAPO's dynamic sampling: collects from another source until enough groups have rewards that differ.

    Groups with equal rewards give no gradient and are set aside, and so are surplus groups of the last round. After
    ``max_rounds`` the step trains on the groups found so far. ``differ`` says which rewards must differ.
    """

    reads = "prompts"
    on_policy = True

    source: CurrentPolicy
    max_rounds: int
    differ: Differing = "total"

    def collect(self, collector: Collector, prompts: int) -> Collected:
        kept: list[Group] = []
        set_aside: list[Group] = []
        seconds: Counter[str] = Counter()
        work: Counter[str] = Counter()
        for _ in range(self.max_rounds):
            collected = self.source.collect(collector, prompts)
            seconds.update(collected.seconds)
            work.update(collected.work)
            for group in collected.groups:
                keep = len(kept) < prompts and _has_spread(group, self.differ)
                (kept if keep else set_aside).append(group)
            if len(kept) == prompts:
                return Collected(kept, set_aside, seconds, work)
        if not kept:
            # The step runs on groups without a gradient and leaves the weights unchanged.
            kept, set_aside = set_aside[:prompts], set_aside[prompts:]
        return Collected(kept, set_aside, seconds, work)


@dataclass(frozen=True)
class InitialPolicy(Source):
    """Rejection sampling: correct completions of the initial policy are collected once, then imitated.

    Samples ``group_size`` completions for each of the first ``prompts`` prompts (None: all) and keeps those whose
    reward is at least ``threshold``, at most ``at_most`` per prompt (None: all); with ``unique``, no two equal.
    """

    reads = "prompts"

    group_size: int
    prompts: int | None
    threshold: float
    at_most: int | None
    unique: bool

    def prepare(self, collector: Collector) -> list[Group]:
        groups = collector.collect(collector.first_prompts(self.prompts), self.group_size).groups
        batch = collate(groups)
        accepted_E = accepted(
            batch.rewards_E,
            batch.group_E,
            batch.tokens_ET,
            batch.mask_ET,
            threshold=self.threshold,
            at_most=self.at_most,
            unique=self.unique,
            prefix_ET=batch.prefix_ET,
        )
        sampled = [(group.prompt, replace(t, score=None)) for group in groups for t in group.trajectories]
        kept = [Group(prompt, (t,)) for (prompt, t), keep in zip(sampled, accepted_E.tolist(), strict=True) if keep]
        with_kept = {group.prompt.source for group in kept}
        for source in dict.fromkeys(group.prompt.source for group in groups):
            if source not in with_kept:
                raise RewardError(self._nothing_kept([g for g in groups if g.prompt.source == source], source))
        collector.keep(kept)
        return groups

    def _nothing_kept(self, groups: Sequence[Group], source: str) -> str:
        rewards_E = collate(groups).rewards_E.nan_to_num(-torch.inf)
        of_source = f" to prompts of source {source}" if source else ""
        return (
            f"none of the {len(rewards_E)} completions of the initial policy{of_source} has a reward of "
            f"{self.threshold:g} or more (the best has {max(rewards_E.tolist()):g}), so there is nothing to imitate: "
            "lower method.threshold, or sample more completions with method.group_size"
        )

    def collect(self, collector: Collector, prompts: int) -> Collected:
        return Collected(collector.next_groups(prompts))


def _has_spread(group: Group, of: Differing) -> bool:
    batch = collate([group])
    if of == "total":
        return not bool(
            zero_spread(
                batch.rewards_E, batch.group_E, rounding_of_sum(batch.rewards_E, batch.rewards_EK, batch.reward_weights)
            ).all()
        )
    rewards_NK = batch.rewards_E[:, None]
    if of == "steps":
        if "step_rewards" not in batch:
            return False
        rewards_NK = batch["step_rewards"][~batch["step_rewards"].isnan()][:, None]
    elif of == "parts" and batch.rewards_EK is not None:
        rewards_NK = batch.rewards_EK
    together_N = torch.zeros(len(rewards_NK), dtype=torch.long)
    return not all(bool(zero_spread(rewards_N, together_N).all()) for rewards_N in rewards_NK.unbind(1))
