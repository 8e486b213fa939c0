"""Collects scored groups in this process: takes prompts from the data, samples completions, scores them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sharpen.data.cursor import Cursor
from sharpen.data.items import Item, Items, MadeItems
from sharpen.data.source_cursor import SourceCursor, dealt
from sharpen.errors import DataError
from sharpen.rewards.scoring import check_failures
from sharpen.rollout.engine import Engine, Sampling
from sharpen.rollout.generation import Interactions, generate
from sharpen.rollout.sources import Collected
from sharpen.types import Group, Prompt

Scoring = Callable[[Sequence[Group]], tuple[list[Group], dict[str, float]]]
"""Returns the groups with scores, and the seconds that each part of scoring took."""


class LocalCollector:
    """Implements ``sources.Collector``. Its state is the data cursor and the next draw id."""

    def __init__(
        self,
        *,
        prompts: Sequence[Prompt] | Items[Prompt] = (),
        groups: Sequence[Group] | Items[Group] = (),
        shares: Mapping[str, float] | None = None,
        seed: int,
        engine: Engine | None = None,
        store: Callable[[Sequence[Group]], Sequence[Group]] | None = None,
        score: Scoring | None = None,
        sampling: Sampling | None = None,
        interaction: Interactions = None,
        max_reward_failures: float = 0.1,
    ) -> None:
        """``shares`` are those of several data sources, which the prompts name; None if there is only one.

        ``max_reward_failures`` is the share of a rollout's trajectories whose environment may fail.
        """
        self._shares = shares
        self._seed = seed
        self._prompts = _items(prompts)
        self._groups = _items(groups)
        self._cursor: Cursor | SourceCursor = self._cursor_over(self._prompts if len(self._prompts) else self._groups)
        self._store = store
        self._engine = engine
        self._score = score
        self._sampling = sampling
        self._interaction = interaction
        self._max_reward_failures = max_reward_failures
        self._next_draw = 0

    @property
    def prompts(self) -> Items[Prompt]:
        """The prompts of the data, if it has no completions to train on."""
        return self._prompts

    def next_prompts(self, count: int) -> list[Prompt]:
        return self._next(self._prompts, count)

    def first_prompts(self, at_most: int | None) -> list[Prompt]:
        if self._shares is None or at_most is None:
            return self._prompts.first(at_most=at_most)
        numbers = self._prompts.by_source()
        counts = dealt(self._shares, at_most)
        return [
            prompt for name, count in counts.items() for prompt in self._prompts.first(numbers[name], at_most=count)
        ]

    def prompts_at_hand(self) -> Sequence[Prompt]:
        """All prompts, or of very many those that were made at the start."""
        return self._prompts.at_hand

    def groups_at_hand(self) -> Sequence[Group]:
        """All groups, or of very many those that were made at the start."""
        return self._groups.at_hand

    def next_groups(self, count: int) -> list[Group]:
        return self._next(self._groups, count)

    @property
    def left_out(self) -> int:
        """How many rows were drawn that are too long, since the run began; others took their places."""
        return self._cursor.left_out

    @property
    def conversations(self) -> bool:
        """Whether the trajectories that it collects may have several turns."""
        return bool(self._interaction) and bool(self._prompts)

    @property
    def groups(self) -> int:
        """The number of groups in the data, or of those kept."""
        return len(self._groups)

    def keep(self, groups: Sequence[Group]) -> None:
        assert self._store is not None
        self._use(self._store(groups))

    def _use(self, groups: Sequence[Group]) -> None:
        self._groups = MadeItems(groups)
        self._cursor = self._cursor_over(self._groups)

    def _cursor_over(self, items: Items[Prompt] | Items[Group]) -> Cursor | SourceCursor:
        if self._shares is None:
            return Cursor(len(items), self._seed)
        return SourceCursor(items.by_source(), self._shares, self._seed)

    def _next(self, items: Items[Item], count: int) -> list[Item]:
        numbers = self._cursor.take(count)
        found = []
        for number, item in zip(numbers, items.take(numbers), strict=True):
            # In two epochs every row is drawn.
            for _ in range(2 * len(items)):
                if item is not None:
                    break
                number = self._cursor.instead_of(number)
                [item] = items.take([number])
            if item is None:
                raise DataError(f"none of the {len(items)} rows fits into the context; shorten them")
            found.append(item)
        return found

    def collect(self, prompts: list[Prompt], group_size: int) -> Collected:
        assert self._engine is not None
        assert self._sampling is not None
        started = time.perf_counter()
        first, self._next_draw = self._next_draw, self._next_draw + len(prompts) * group_size
        draw_ids = [range(first + i * group_size, first + (i + 1) * group_size) for i in range(len(prompts))]
        before = asdict(self._engine.counters)
        drawn = generate(self._engine, prompts, draw_ids, self._sampling, self._seed, self._interaction)
        work = {name: count - before[name] for name, count in asdict(self._engine.counters).items()}
        rollout_s = time.perf_counter() - started
        groups = [Group(p, trajectories) for p, trajectories in zip(prompts, drawn, strict=True)]
        check_failures(groups, self._max_reward_failures)
        # A method may need no reward: one that follows a teacher.
        scored, seconds = (groups, {}) if self._score is None else self._score(groups)
        return Collected(scored, seconds={"rollout": rollout_s, **seconds}, work=work)

    def state(self) -> dict[str, Any]:
        return {"cursor": self._cursor.state(), "next_draw": self._next_draw}

    def load(self, state: dict[str, Any], kept: Sequence[Group] | None, *, changed: bool = False) -> None:
        """Resume from ``state``, with the groups that were kept, if any. ``changed``: the data may have changed, see
        `Cursor.load`."""
        if kept is not None:
            self._use(kept)
        self._cursor.load(state["cursor"], changed=changed)
        self._next_draw = state["next_draw"]


def _items(items: Sequence[Item] | Items[Item]) -> Items[Item]:
    return items if isinstance(items, Items) else MadeItems(items)
