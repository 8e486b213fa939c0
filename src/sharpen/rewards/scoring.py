"""Scores groups and limits the rate of failures."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from sharpen.errors import RewardError
from sharpen.rewards.reward import Reward, sample_name
from sharpen.system.user_code import undisturbed
from sharpen.types import End, Group, Score


def score_groups(
    reward: Reward, groups: Sequence[Group], *, max_failure_rate: float
) -> tuple[list[Group], dict[str, float]]:
    """The scored groups; and the seconds taken, in total as ``reward`` and for each part as ``reward/<name>``.

    A trajectory that has a score already keeps it: one whose environment failed is not shown to the reward. Raises
    `RewardError` if the reward returns something that is not a number, or if too many completions fail.
    """
    started = time.perf_counter()
    with undisturbed():
        scores, parts = reward.score_timed([group for group in map(_unscored, groups) if group.trajectories])
    found = iter(scores)
    scored = [group.scored(_filled(group, next(found) if _unscored(group).trajectories else ())) for group in groups]
    seconds = {"reward": time.perf_counter() - started}
    check_failures(scored, max_failure_rate)
    return scored, seconds | {f"reward/{name}": of_part for name, of_part in parts.items()}


def _unscored(group: Group) -> Group:
    """The group without the trajectories that have a score."""
    if not group.scores:
        return group
    return replace(group, trajectories=tuple(t for t in group.trajectories if t.score is None))


def _filled(group: Group, scores: Sequence[Score]) -> tuple[Score, ...]:
    """The scores of all trajectories, given those of the unscored ones."""
    found = iter(scores)
    return tuple(next(found) if t.score is None else t.score for t in group.trajectories)


def score_step(
    reward: Reward, groups: Sequence[Group], *, max_failure_rate: float
) -> tuple[list[Group], dict[str, float]]:
    """Like `score_groups`, for a training step: also raises `RewardError` if the reward applies to no completion.

    Unless all are of data sources that have no reward.
    """
    scored, seconds = score_groups(reward, groups, max_failure_rate=max_failure_rate)
    rewarded = [group for group in scored if reward.scores_source(group.prompt.source)]
    if rewarded and all(s.total is None for g in rewarded for s in g.scores):
        raise RewardError(f"reward {reward.name!r} applied to none of the completions of a step")
    return scored, seconds


def check_failures(groups: Sequence[Group], max_failure_rate: float) -> None:
    """Raises `RewardError` if more than this share of the completions failed, by their environment or their reward.

    The message counts both, and names the first sample that failed and why: the environment first.
    """
    environment: list[tuple[Group, int, Score]] = []
    reward: list[tuple[Group, int, Score]] = []
    for group in groups:
        for index, trajectory in enumerate(group.trajectories):
            if trajectory.score is not None and trajectory.score.error is not None:
                failed = environment if trajectory.end is End.ENVIRONMENT_FAILED else reward
                failed.append((group, index, trajectory.score))
    total = sum(len(group.trajectories) for group in groups)
    if len(environment) + len(reward) <= max_failure_rate * total:
        return
    counted = [_counted("environment", environment, total)] if environment else []
    counted += [_counted("reward", reward, total)] if reward else []
    group, index, score = [*environment, *reward][0]
    raise RewardError(
        f"{' and '.join(counted)}, more than the rate of {max_failure_rate:g} allows. "
        f"The first: {sample_name(group, index)}: {score.error}"
    )


def _counted(what: str, failed: Sequence[tuple[Group, int, Score]], total: int) -> str:
    late = sum(score.timed_out for _, _, score in failed)
    timed_out = f" ({late} of them took too long)" if late else ""
    return f"the {what} failed for {len(failed)} of {total} completions{timed_out}"
