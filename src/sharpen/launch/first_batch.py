"""The batch of a run's first step, taken as the step takes it, before anything is drawn."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from sharpen.rollout.sources import Collected, Collector
from sharpen.training.trainer import Trainer
from sharpen.types import Group, Prompt


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of text as the tokenizer decodes it: one special token, or tokens that are all trained on or all not."""

    text: str
    trained: bool
    special: bool


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

    def prompt(self, group: Group) -> tuple[Span, ...]:
        """The prompt as the model sees it."""
        return self._spans(group.prompt.token_ids, [False] * len(group.prompt.token_ids))

    def completions(self, group: Group) -> Iterator[tuple[Span, ...]]:
        """Each completion with what of it is trained on; several samples of one follow one another."""
        for trajectory in group.trajectories:
            yield self._spans(trajectory.token_ids, trajectory.loss_mask)

    def _spans(self, ids: Sequence[int], trained: Sequence[bool]) -> tuple[Span, ...]:
        added = self.tokenizer.added_tokens_decoder
        special = set(self.tokenizer.all_special_ids) | {i for i, token in added.items() if token.special}
        # Special tokens stand alone, other tokens of one kind together: a character may need several.
        tokens = list(zip(ids, trained, strict=True))
        spans = []
        for (place, is_trained), run in groupby(
            enumerate(tokens), lambda found: (found[0] if found[1][0] in special else -1, found[1][1])
        ):
            text = self.tokenizer.decode([token_id for _, (token_id, _) in run], skip_special_tokens=False)
            spans.append(Span(str(text), is_trained, place >= 0))
        return tuple(spans)


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
