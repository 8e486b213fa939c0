"""Where prompts and completions come from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

import torch

from sharpen.data.collate import collate
from sharpen.errors import RewardError
from sharpen.functional.advantages import accepted, zero_spread
from sharpen.functional.rounding import rounding_of_sum
from sharpen.types import Group, Prompt

Reads = Literal["prompts", "demonstrations", "preferences", "steps"]
"""What a source needs of the data: prompts alone, or completions that somebody wrote, ranked or marked by step."""

Differing = Literal["total", "steps", "parts"]
"""The rewards that differ within a group that teaches: of completions, of their steps, or one of several rewards."""


class Collector(Protocol):
    """What a source can draw on."""

    def all_prompts(self) -> list[Prompt]: ...

    def next_prompts(self, count: int) -> list[Prompt]: ...

    def next_groups(self, count: int) -> list[Group]:
        """The next groups of the data, or of what was kept."""
        ...

    def collect(self, prompts: list[Prompt], group_size: int) -> Drawn:
        """``group_size`` completions of the current policy for each prompt, with the reward's scores."""
        ...

    def keep(self, groups: list[Group]) -> None:
        """Make these the groups that `next_groups` gives from now on; they outlive a crash."""
        ...


@dataclass(frozen=True, slots=True)
class Drawn:
    """The groups of one step, and those that were drawn as well but are not trained on.

    ``seconds`` are those that drawing and scoring took, by part: ``rollout``, ``reward``, ``reward/<name>``.
    """

    groups: list[Group]
    set_aside: list[Group] = field(default_factory=list)
    seconds: Mapping[str, float] = field(default_factory=dict)


class Source(ABC):
    """One place that completions come from."""

    reads: ClassVar[Reads]
    on_policy: ClassVar[bool] = False
    """Whether the completions of a step are drawn from the policy that is then updated."""

    def prepare(self, collector: Collector) -> list[Group]:
        """What has to be done once, before the first step. Gives what was drawn for it."""
        return []

    @abstractmethod
    def draw(self, collector: Collector, prompts: int) -> Drawn:
        """The groups of one step."""


class _Data(Source):
    def draw(self, collector: Collector, prompts: int) -> Drawn:
        return Drawn(collector.next_groups(prompts))


class Demonstrations(_Data):
    """Completions written by somebody else."""

    reads = "demonstrations"


class Preferences(_Data):
    """Completions of the same prompt that somebody has ranked."""

    reads = "preferences"


class MarkedSteps(_Data):
    """Completions whose steps somebody has marked as right or wrong."""

    reads = "steps"


@dataclass(frozen=True)
class CurrentPolicy(Source):
    """``group_size`` completions of the current policy for each prompt, scored."""

    reads = "prompts"
    on_policy = True

    group_size: int

    def draw(self, collector: Collector, prompts: int) -> Drawn:
        return collector.collect(collector.next_prompts(prompts), self.group_size)


@dataclass(frozen=True)
class Refilled(Source):
    """Draws from another source until every group has rewards that differ: DAPO's dynamic sampling.

    Groups without spread teach nothing and are set aside; so are those beyond what the step needs, and what came
    with the last round. After ``max_rounds`` the step goes with the groups that there are. ``differ`` says which
    rewards.
    """

    reads = "prompts"
    on_policy = True

    source: CurrentPolicy
    max_rounds: int
    differ: Differing = "total"

    def draw(self, collector: Collector, prompts: int) -> Drawn:
        kept: list[Group] = []
        set_aside: list[Group] = []
        seconds: Counter[str] = Counter()
        for _ in range(self.max_rounds):
            drawn = self.source.draw(collector, prompts)
            seconds.update(drawn.seconds)
            for group in drawn.groups:
                teaches = len(kept) < prompts and _has_spread(group, self.differ)
                (kept if teaches else set_aside).append(group)
            if len(kept) == prompts:
                return Drawn(kept, set_aside, seconds)
        # Not one group with spread: the step goes on with groups that teach nothing, and changes nothing.
        return Drawn(kept, set_aside, seconds) if kept else Drawn(set_aside[:prompts], set_aside[prompts:], seconds)


@dataclass(frozen=True)
class InitialPolicy(Source):
    """What the policy that training begins with answers, kept if right: a data set made once, then imitated.

    ``group_size`` completions for each of the first ``prompts`` prompts (all of them where it is None), of which
    those with at least ``threshold`` are kept, each once and at most ``at_most`` for a prompt.
    """

    reads = "prompts"

    group_size: int
    prompts: int | None
    threshold: float
    at_most: int | None
    unique: bool

    def prepare(self, collector: Collector) -> list[Group]:
        groups = collector.collect(collector.all_prompts()[: self.prompts], self.group_size).groups
        batch = collate(groups)
        accepted_B = accepted(
            batch.rewards_B,
            batch.group_B,
            batch.tokens_BT,
            batch.mask_BT,
            threshold=self.threshold,
            at_most=self.at_most,
            unique=self.unique,
        )
        drawn = [(group.prompt, completion) for group in groups for completion in group.completions]
        chosen = [Group(prompt, (c,)) for (prompt, c), keep in zip(drawn, accepted_B.tolist(), strict=True) if keep]
        if not chosen:
            raise RewardError(
                f"none of the {len(drawn)} completions of the initial policy has a reward of {self.threshold:g} or "
                f"more (the best has {max(batch.rewards_B.nan_to_num(-torch.inf).tolist()):g}), so there is nothing to "
                "imitate: lower method.threshold, or draw more with method.group_size"
            )
        collector.keep(chosen)
        return groups

    def draw(self, collector: Collector, prompts: int) -> Drawn:
        return Drawn(collector.next_groups(prompts))


def _has_spread(group: Group, of: Differing) -> bool:
    batch = collate([group])
    if of == "total":
        return not bool(
            zero_spread(
                batch.rewards_B, batch.group_B, rounding_of_sum(batch.rewards_B, batch.rewards_BK, batch.reward_weights)
            ).all()
        )
    rewards_NK = batch.rewards_B[:, None]
    if of == "steps":
        if batch.step_rewards_BT is None:
            return False
        rewards_NK = batch.step_rewards_BT[~batch.step_rewards_BT.isnan()][:, None]
    elif of == "parts" and batch.rewards_BK is not None:
        rewards_NK = batch.rewards_BK
    together_N = torch.zeros(len(rewards_NK), dtype=torch.long)
    return not all(bool(zero_spread(rewards_N, together_N).all()) for rewards_N in rewards_NK.unbind(1))
