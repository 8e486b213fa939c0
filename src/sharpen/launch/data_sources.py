"""The data sources of a recipe, each with its task and its reward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from sharpen.data.rows import Rows
from sharpen.data.settings import DataSettings
from sharpen.data.tasks import Task, resolve_task
from sharpen.errors import SharpenError
from sharpen.recipe.schema import Recipe
from sharpen.recipe.sources import has_common_reward
from sharpen.rewards.by_source import BySource
from sharpen.rewards.registry import resolve_reward
from sharpen.rewards.reward import Reward
from sharpen.rewards.task import TaskReward


@dataclass(frozen=True, slots=True)
class DataSource:
    """A source of data with its settings, in which the defaults of all sources are filled in.

    ``name`` is empty if it is the only one. ``task`` is None for rows of the user's own.
    """

    name: str
    data: DataSettings
    task: Task | None
    reward: Reward | None

    def named(self, rows: Rows) -> Rows:
        """The rows, with the source in their name in messages and in their ids."""
        if not self.name:
            return rows
        return replace(rows, name=f"source {self.name}, {rows.name}", key=self.name)


def read_sources(recipe: Recipe) -> tuple[DataSource, ...]:
    """Resolve the task and the reward of each source. Raises SharpenError, which names the source."""
    common: Reward | None = None
    sources = []
    for name, data in recipe.data.by_source().items():
        settings = recipe.data.sources.get(name)
        with errors_of(name):
            task = None if data.task is None else resolve_task(data.task, "task" if name else "data.task")
            if settings is None:
                reward = _reward(recipe.reward, task)
            elif has_common_reward(settings):
                # One object for all of them, so that a reward model is loaded once.
                reward = common = common or _reward(recipe.reward, None)
            else:
                reward = _reward(settings.reward, task)
            # The completions that a reward model learns from are already graded.
            graded = task is not None and not recipe.method.makes_a_policy
            sources.append(DataSource(name, data, task, None if graded else reward))
    return tuple(sources)


def combined_reward(sources: tuple[DataSource, ...]) -> Reward | None:
    """The only source's reward, or that which scores each prompt by the reward of its source; None if there is none."""
    if not sources[0].name:
        return sources[0].reward
    rewards = {source.name: source.reward for source in sources if source.reward is not None}
    return BySource(rewards) if rewards else None


def task_reward(task: Task, spec: Any) -> Reward:
    """The task's verifier, or the reward that ``spec`` describes, in which the name ``task`` means that verifier."""
    return TaskReward(task) if spec is None else resolve_reward(spec, task)


@contextmanager
def errors_of(source: str) -> Iterator[None]:
    """Errors name the source, if there are several."""
    try:
        yield
    except SharpenError as error:
        if not source:
            raise
        raise type(error)(f"data.sources.{source}: {error}") from error


def _reward(spec: Any, task: Task | None) -> Reward | None:
    if task is not None:
        return task_reward(task, spec)
    return None if spec is None else resolve_reward(spec)
