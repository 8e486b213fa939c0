"""What a source draws on in this process: the data in its order, the engine, the reward."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from sharpen.data.cursor import Cursor
from sharpen.errors import RewardError
from sharpen.rewards.reward import Reward
from sharpen.rewards.scoring import score_groups
from sharpen.rollout.engine import Engine, Sampling
from sharpen.types import Group, Prompt


class LocalWorld:
    """Implements ``sources.World``. Its state is the data cursor and the number of draws so far."""

    def __init__(
        self,
        *,
        prompts: Sequence[Prompt] = (),
        groups: Sequence[Group] = (),
        engine: Engine | None,
        store: Callable[[Sequence[Group]], Sequence[Group]],
        reward: Reward | None,
        sampling: Sampling,
        max_reward_failures: float,
        seed: int,
    ) -> None:
        self._prompts = prompts
        self._groups = groups
        self._cursor = Cursor(len(prompts) or len(groups), seed)
        self._store = store
        self._engine = engine
        self._reward = reward
        self._sampling = sampling
        self._max_reward_failures = max_reward_failures
        self._seed = seed
        self._next_draw = 0
        self.seconds = {"rollout": 0.0, "reward": 0.0}

    def next_prompts(self, count: int) -> list[Prompt]:
        return [self._prompts[i] for i in self._cursor.take(count)]

    def all_prompts(self) -> list[Prompt]:
        return list(self._prompts)

    def next_groups(self, count: int) -> list[Group]:
        return [self._groups[i] for i in self._cursor.take(count)]

    @property
    def groups(self) -> int:
        """How many there are to draw from."""
        return len(self._groups)

    def keep(self, groups: Sequence[Group]) -> None:
        self._use(self._store(groups))

    def _use(self, groups: Sequence[Group]) -> None:
        self._groups = groups
        self._cursor = Cursor(len(groups), self._seed)

    def sample(self, prompts: list[Prompt], group_size: int) -> list[Group]:
        assert self._engine is not None
        started = time.perf_counter()
        first, self._next_draw = self._next_draw, self._next_draw + len(prompts) * group_size
        draw_ids = [range(first + i * group_size, first + (i + 1) * group_size) for i in range(len(prompts))]
        drawn = self._engine.generate(prompts, draw_ids, self._sampling, self._seed)
        self.seconds["rollout"] += time.perf_counter() - started
        return [Group(p, completions) for p, completions in zip(prompts, drawn, strict=True)]

    def score(self, groups: list[Group]) -> list[Group]:
        assert self._reward is not None
        scored, seconds = score_groups(self._reward, groups, max_failure_rate=self._max_reward_failures)
        for part, of_part in seconds.items():
            self.seconds[part] = self.seconds.get(part, 0.0) + of_part
        if all(s.total is None for g in scored for s in g.scores):
            raise RewardError(f"reward {self._reward.name!r} applied to none of the completions of a step")
        return scored

    def state(self) -> dict[str, Any]:
        return {"cursor": self._cursor.state(), "next_draw": self._next_draw}

    def load(self, state: dict[str, Any], kept: Sequence[Group] | None) -> None:
        """Go on from ``state``, and with the groups that had been kept where there are some."""
        if kept is not None:
            self._use(kept)
        self._cursor.load(state["cursor"])
        self._next_draw = state["next_draw"]
