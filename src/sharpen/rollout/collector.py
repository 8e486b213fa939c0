"""Collects scored groups in this process: takes prompts from the data, samples completions, scores them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sharpen.data.cursor import Cursor
from sharpen.data.source_cursor import SourceCursor, first_of_each
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
        prompts: Sequence[Prompt] = (),
        groups: Sequence[Group] = (),
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
        self._prompts = prompts
        self._groups = groups
        self._cursor = self._cursor_over(prompts or [group.prompt for group in groups])
        self._store = store
        self._engine = engine
        self._score = score
        self._sampling = sampling
        self._interaction = interaction
        self._max_reward_failures = max_reward_failures
        self._next_draw = 0

    def next_prompts(self, count: int) -> list[Prompt]:
        return [self._prompts[i] for i in self._cursor.take(count)]

    def all_prompts(self) -> list[Prompt]:
        return list(self._prompts)

    def first_prompts(self, at_most: int | None) -> list[Prompt]:
        if self._shares is None:
            return list(self._prompts[:at_most])
        sources = [prompt.source for prompt in self._prompts]
        return [self._prompts[i] for i in first_of_each(sources, self._shares, at_most)]

    def all_groups(self) -> list[Group]:
        return list(self._groups)

    def next_groups(self, count: int) -> list[Group]:
        return [self._groups[i] for i in self._cursor.take(count)]

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
        self._groups = groups
        self._cursor = self._cursor_over([group.prompt for group in groups])

    def _cursor_over(self, prompts: Sequence[Prompt]) -> Cursor | SourceCursor:
        if self._shares is None:
            return Cursor(len(prompts), self._seed)
        return SourceCursor([prompt.source for prompt in prompts], self._shares, self._seed)

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
