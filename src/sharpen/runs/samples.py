"""Completions with their rewards as Parquet files, one row per trajectory."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sharpen.system.files import replacing
from sharpen.types import Group, Score, Trajectory

LISTS = {
    "token_ids": pa.list_(pa.int32()),
    "token_texts": pa.list_(pa.string()),
    "loss_mask": pa.list_(pa.bool_()),
    "clipped": pa.list_(pa.bool_()),
    **{
        name: pa.list_(pa.float32())
        for name in (
            "rollout_logprob",
            "old_logprob",
            "ref_logprob",
            "logprob",
            "advantage",
            "coefficient",
            "weight",
            "ratio",
            "kl",
            "entropy",
            "value",
            "score",
            "step_reward",
        )
    },
}
"""The columns with an entry for each token, and their types."""


def sample_rows(groups: Sequence[Group], *, conversations: bool = False) -> list[dict[str, Any]]:
    """The columns of every sample file, for each trajectory in order; without a reward they have none.

    ``completion`` is the model's last answer, ``tokens`` the number of those that the model wrote, in all its turns.
    ``source`` is there in runs with several data sources. With ``conversations``, where the recipe allows several
    turns, the columns of `_conversation` say the rest.
    """
    return [
        {
            **({"source": group.prompt.source} if group.prompt.source else {}),
            "prompt_id": group.prompt.id,
            "prompt": group.prompt.text,
            "completion": trajectory.text,
            "reward": _number(score.total),
            **{f"reward/{name}": _number(value) for name, value in score.parts.items()},
            "error": score.error,
            **({} if score.refused is None else {"refused": score.refused}),
            "tokens": trajectory.drawn,
            "finish": trajectory.last.finish.value,
            "draw_id": trajectory.draw_id,
            "policy_version": next(iter(trajectory.samples[0].versions), None),
            **(_conversation(trajectory) if conversations else {}),
        }
        for group in groups
        for trajectory, score in ((t, t.score or Score(None)) for t in group.trajectories)
    ]


def tokens_of(
    trajectories: Sequence[Trajectory],
    texts: Callable[[Sequence[int]], Sequence[str]],
    computed: Sequence[Mapping[str, Any]] = (),
) -> list[dict[str, Any]]:
    """The columns of `LISTS` for each trajectory: its tokens, and what the training ``computed`` for them.

    ``texts`` splits the text of tokens into a piece for each. The trajectories after those that were trained on have
    nothing that was computed, and no token in the loss mask.
    """
    rows = []
    for number, trajectory in enumerate(trajectories):
        of_row = computed[number] if number < len(computed) else {}
        ids = trajectory.token_ids
        row = {"token_ids": ids, "token_texts": texts(ids), "loss_mask": [False] * len(ids), **of_row}
        if "clipped" in row:
            row["clipped"] = [None if math.isnan(clipped) else bool(clipped) for clipped in row["clipped"]]
        rows.append(row)
    return rows


def _number(value: float | None) -> float | None:
    """As a float, so that the columns of all steps have one type, also if a reward of a user's own gives integers."""
    return None if value is None else float(value)


def _conversation(trajectory: Trajectory) -> dict[str, Any]:
    """How it ended, the model's turns, the samples that it is trained on, and the messages as JSON."""
    return {
        "end": trajectory.end.value,
        "turns": sum(message["role"] == "assistant" for message in trajectory.messages),
        "samples": len(trajectory.samples),
        "messages": json.dumps([dict(message) for message in trajectory.messages], ensure_ascii=False),
    }


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a Parquet file; a column that a row lacks is null there."""
    names = dict.fromkeys(name for row in rows for name in row)
    write_table(path, pa.table({name: _column(name, [row.get(name) for row in rows]) for name in names}))


def _column(name: str, values: list[Any]) -> Any:
    """With the type of its own that a column of `LISTS` has, also where every list in it is empty."""
    return pa.array(values, type=LISTS[name]) if name in LISTS else values


def write_table(path: Path, table: pa.Table) -> None:
    """Write a Parquet file with checksums, by which a reader notices damage."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        pq.write_table(table, partial, write_page_checksum=True)
