"""The batch of a run's first step, taken as the step takes it, before anything is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from sharpen.launch.spans import Span, spans
from sharpen.rollout.sources import Collected, Collector
from sharpen.training.trainer import Trainer
from sharpen.types import Group, Prompt


@dataclass(frozen=True, slots=True)
class FirstBatch:
    """The groups of the first step, and of its second source if it has one.

    Groups without trajectories are prompts, for each of which the policy will draw ``group_size`` completions; that is
    0 where all completions are in the data. With
    ``before_training`` they are drawn once, before the first step, and the steps train on those that are kept.
    """

    groups: tuple[Group, ...]
    group_size: int = 0
    before_training: bool = False
    mixed: tuple[Group, ...] = ()
    tokenizer: Any = field(default=None, repr=False, compare=False)

    def prompt(self, group: Group) -> list[Span]:
        """The prompt as the model sees it."""
        return spans(self.tokenizer, group.prompt.token_ids)

    def completions(self, group: Group) -> Iterator[list[Span]]:
        """Each completion with what of it is trained on; several samples of one follow one another."""
        for trajectory in group.trajectories:
            before = group.prompt.token_ids
            yield spans(self.tokenizer, trajectory.token_ids, trajectory.loss_mask, before=before)


class _Drawing(Exception):
    """The source asks for completions, for the first time."""

    def __init__(self, prompts: Sequence[Prompt], group_size: int) -> None:
        super().__init__()
        self.prompts, self.group_size = prompts, group_size


class _BeforeDrawing:
    """A collector that hands out the data and stops where completions would be drawn. Implements `Collector`."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def first_prompts(self, at_most: int | None) -> list[Prompt]:
        return self._collector.first_prompts(at_most)

    def next_prompts(self, count: int) -> list[Prompt]:
        return self._collector.next_prompts(count)

    def next_groups(self, count: int) -> list[Group]:
        return self._collector.next_groups(count)

    def collect(self, prompts: list[Prompt], group_size: int) -> Collected:
        raise _Drawing(prompts, group_size)

    def keep(self, groups: list[Group]) -> None:
        raise AssertionError("nothing is drawn, so nothing can be kept")


def first_batch(trainer: Trainer) -> FirstBatch:
    """What the next step takes, as the step itself would take it. The run's place in the data moves on by that."""
    source, collector = trainer.source, _BeforeDrawing(trainer.collector)
    tokenizer = trainer.model.tokenizer
    mixed = tuple(trainer.mixed_groups())
    if pending := trainer.ahead.pending():
        groups = tuple(pending[0].groups)
        return FirstBatch(groups, max(len(group.trajectories) for group in groups), mixed=mixed, tokenizer=tokenizer)
    before_training = trainer.step == 0
    try:
        if before_training:
            source.prepare(collector)
        before_training = False
        taken = source.collect(collector, trainer.training.prompts_per_step)
    except _Drawing as drawing:
        groups = tuple(Group(prompt, ()) for prompt in drawing.prompts)
        return FirstBatch(groups, drawing.group_size, before_training, mixed, tokenizer)
    return FirstBatch(tuple(taken.groups), mixed=mixed, tokenizer=tokenizer)
