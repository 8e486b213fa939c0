"""Trajectories as JSON, for files and for other processes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sharpen.types import End, Finish, Sample, Trajectory


def trajectory_to_json(trajectory: Trajectory) -> dict[str, Any]:
    """All of a trajectory but its score, as `trajectory_from_json` reads it."""
    return {
        "samples": [
            {
                "prefix_ids": sample.prefix_ids,
                "token_ids": sample.token_ids,
                "loss_mask": sample.loss_mask,
                "finish": sample.finish.value,
                "logprobs": sample.logprobs,
                "versions": sample.versions,
            }
            for sample in trajectory.samples
        ],
        "messages": [dict(message) for message in trajectory.messages],
        "end": trajectory.end.value,
        "draw_id": trajectory.draw_id,
    }


def trajectory_from_json(fields: Mapping[str, Any]) -> Trajectory:
    """Raises KeyError for a missing field, ValueError for an unknown ``finish`` or ``end``."""
    samples = tuple(
        Sample(
            prefix_ids=tuple(sample["prefix_ids"]),
            token_ids=tuple(sample["token_ids"]),
            loss_mask=tuple(sample["loss_mask"]),
            finish=Finish(sample["finish"]),
            logprobs=tuple(sample["logprobs"]),
            versions=tuple(sample["versions"]),
        )
        for sample in fields["samples"]
    )
    return Trajectory(samples, tuple(fields["messages"]), End(fields["end"]), fields["draw_id"])
