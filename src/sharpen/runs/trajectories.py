"""Trajectories as JSON, exactly: floats are written so that they read back as the same bits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sharpen.types import (
    End,
    Finish,
    Group,
    Prompt,
    Sample,
    Score,
    StepValue,
    Trajectory,
    WeightedReward,
)


def group_to_json(group: Group) -> list[dict[str, Any]]:
    """The trajectories of a group; its prompt is not included."""
    return [trajectory_to_json(trajectory) for trajectory in group.trajectories]


def group_from_json(prompt: Prompt, trajectories: list[Mapping[str, Any]]) -> Group:
    return Group(prompt, tuple(trajectory_from_json(one) for one in trajectories))


def trajectory_to_json(trajectory: Trajectory) -> dict[str, Any]:
    """All of a trajectory, as `trajectory_from_json` reads it."""
    return {
        "samples": [
            {
                "prefix_ids": sample.prefix_ids,
                "token_ids": sample.token_ids,
                "loss_mask": [int(trained) for trained in sample.loss_mask],
                "finish": sample.finish.value,
                "logprobs": sample.logprobs,
                "versions": sample.versions,
            }
            for sample in trajectory.samples
        ],
        "messages": [dict(message) for message in trajectory.messages],
        "end": trajectory.end.value,
        "draw_id": trajectory.draw_id,
        "score": None if trajectory.score is None else _score(trajectory.score),
    }


def trajectory_from_json(one: Mapping[str, Any]) -> Trajectory:
    """Raises KeyError for a missing field, ValueError for an unknown ``finish`` or ``end``."""
    return Trajectory(
        tuple(
            Sample(
                tuple(sample["prefix_ids"]),
                tuple(sample["token_ids"]),
                tuple(map(bool, sample["loss_mask"])),
                Finish(sample["finish"]),
                tuple(sample["logprobs"]),
                tuple(sample["versions"]),
            )
            for sample in one["samples"]
        ),
        tuple(one["messages"]),
        End(one["end"]),
        one["draw_id"],
        None if one["score"] is None else _read_score(one["score"]),
    )


def _score(score: Score) -> dict[str, Any]:
    return {
        "total": score.total,
        "parts": dict(score.parts),
        "steps": [[step.position, step.value, step.sample] for step in score.steps],
        "error": score.error,
        "timed_out": score.timed_out,
        "retries": score.retries,
        "weighted_rewards": [[reward.weight, reward.value] for reward in score.weighted_rewards],
        **({} if score.refused is None else {"refused": score.refused}),
    }


def _read_score(one: Mapping[str, Any]) -> Score:
    return Score(
        one["total"],
        one["parts"],
        tuple(StepValue(*step) for step in one["steps"]),
        one["error"],
        one["timed_out"],
        one["retries"],
        tuple(WeightedReward(*reward) for reward in one["weighted_rewards"]),
        one.get("refused"),
    )
