"""Groups with their scores, and the limit on failures."""

from __future__ import annotations

import time
from collections.abc import Sequence

from sharpen.errors import RewardError
from sharpen.rewards.execution.user_code import undisturbed
from sharpen.rewards.reward import Reward, sample_name
from sharpen.types import Group


def score_groups(
    reward: Reward, groups: Sequence[Group], *, max_failure_rate: float
) -> tuple[list[Group], dict[str, float]]:
    """The groups with the reward's scores; and the seconds it took, as ``reward``, and of each part ``reward/<name>``.

    Raises `RewardError` where the reward gave something that is no number, and where too many failed.
    """
    started = time.perf_counter()
    with undisturbed():
        scores, parts = reward.score_timed(groups)
    scored = [group.scored(of_group) for group, of_group in zip(groups, scores, strict=True)]
    seconds = {"reward": time.perf_counter() - started}
    check_failures(scored, max_failure_rate)
    return scored, seconds | {f"reward/{name}": of_part for name, of_part in parts.items()}


def score_step(
    reward: Reward, groups: Sequence[Group], *, max_failure_rate: float
) -> tuple[list[Group], dict[str, float]]:
    """The same for the groups of a training step. Raises `RewardError` also where the reward applies to none."""
    scored, seconds = score_groups(reward, groups, max_failure_rate=max_failure_rate)
    if all(s.total is None for g in scored for s in g.scores):
        raise RewardError(f"reward {reward.name!r} applied to none of the completions of a step")
    return scored, seconds


def check_failures(groups: Sequence[Group], max_failure_rate: float) -> None:
    """Raises `RewardError` if more than this share of the scored completions failed.

    The message names the function, the first sample that failed and what was raised.
    """
    failed = [
        (group, index, score) for group in groups for index, score in enumerate(group.scores) if score.error is not None
    ]
    total = sum(len(group.scores) for group in groups)
    if len(failed) > max_failure_rate * total:
        group, index, score = failed[0]
        late = sum(score.timed_out for _, _, score in failed)
        timed_out = f" ({late} of them took too long)" if late else ""
        raise RewardError(
            f"the reward failed for {len(failed)} of {total} completions{timed_out}, more than the rate of "
            f"{max_failure_rate:g} allows. The first: {sample_name(group, index)}: {score.error}"
        )
