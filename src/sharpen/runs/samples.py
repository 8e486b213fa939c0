"""Completions with their rewards as Parquet files, one row per completion."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sharpen.system.files import replacing
from sharpen.types import Group, Score


def sample_rows(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The columns of every sample file, for each completion in order; without a reward they have none."""
    return [
        {
            "prompt_id": group.prompt.id,
            "prompt": group.prompt.text,
            "completion": completion.text,
            "reward": score.total,
            **{f"reward/{name}": value for name, value in score.parts.items()},
            "error": score.error,
            "tokens": len(completion.token_ids),
            "finish": completion.last.finish.value,
            "draw_id": completion.draw_id,
            "policy_version": next(iter(completion.samples[0].versions), None),
        }
        for group in groups
        for completion, score in ((c, c.score or Score(None)) for c in group.trajectories)
    ]


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as a Parquet file; a column that a row lacks is null there."""
    names = dict.fromkeys(name for row in rows for name in row)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), partial)
