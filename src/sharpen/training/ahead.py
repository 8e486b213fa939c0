"""Rollouts that run ahead: the batch of a step is drawn some steps before it is trained on."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from sharpen.data.items import Items
from sharpen.errors import CheckpointError
from sharpen.rollout.sources import Collected, Collector, Source
from sharpen.runs.trajectories import group_from_json, group_to_json
from sharpen.types import Group, Prompt


class RolloutsAhead:
    """Draws the batch of step t at the start of step t − ``lag``, so that it is ``lag`` versions old when trained on.

    Which version draws a batch, and which results its prompts may depend on, follows from the step alone. The first
    ``lag`` + 1 batches are drawn by the initial policy.
    """

    def __init__(self, source: Source, collector: Collector, *, prompts: int, steps: int, lag: int) -> None:
        """``prompts`` per step; ``steps`` is the length of the run."""
        self._source, self._collector = source, collector
        self._prompts, self._steps, self._lag = prompts, steps, lag
        self._pending: deque[Collected] = deque()

    def take(self, step: int) -> tuple[Collected, list[Collected]]:
        """The batch of ``step``, counted from 1; and the batches drawn now, all that are due by this step."""
        due = min(step + self._lag, self._steps) - step + 1
        drawn = [self._source.collect(self._collector, self._prompts) for _ in range(due - len(self._pending))]
        self._pending.extend(drawn)
        return self._pending.popleft(), drawn

    def pending(self) -> tuple[Collected, ...]:
        """Batches that are drawn and not yet trained on, for a checkpoint."""
        return tuple(self._pending)

    def load(self, pending: Sequence[Collected]) -> None:
        self._pending = deque(pending)


def pending_to_json(pending: Sequence[Collected], prompts: Items[Prompt]) -> str:
    """``pending`` as text, without timings; prompts are written as their number among all ``prompts``."""

    def written(groups: Sequence[Group]) -> list[dict[str, Any]]:
        return [{"prompt": prompts.number_of(group.prompt), "trajectories": group_to_json(group)} for group in groups]

    return json.dumps(
        [
            {"groups": written(one.groups), "set_aside": written(one.set_aside), "work": dict(one.work)}
            for one in pending
        ]
    )


def pending_from_json(text: str, prompts: Items[Prompt], where: str) -> list[Collected]:
    """Raises CheckpointError if the text is no list, or names a prompt that the data does not have."""

    def read(groups: Sequence[Mapping[str, Any]]) -> list[Group]:
        numbers = [int(group["prompt"]) for group in groups]
        for number in numbers:
            if not 0 <= number < len(prompts):
                raise CheckpointError(f"{where}: prompt {number} is not among the data's {len(prompts)}")
        found = []
        for number, prompt, group in zip(numbers, prompts.take(numbers), groups, strict=True):
            if prompt is None:
                raise CheckpointError(f"{where}: prompt {number} no longer fits into the context")
            found.append(group_from_json(prompt, group["trajectories"]))
        return found

    batches = json.loads(text)
    if not isinstance(batches, list):
        raise CheckpointError(f"{where}: damaged, it is not a list of batches")
    return [Collected(read(one["groups"]), read(one["set_aside"]), work=one["work"]) for one in batches]
