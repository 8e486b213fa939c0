"""The completions of an evaluation as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from sharpen.evaluation.runner import Evaluation
from sharpen.system.files import replacing


def write_samples(evaluation: Evaluation, path: Path) -> None:
    """Write a Parquet file with one row per completion: its reward and whether it counts as right."""
    rows: list[dict[str, Any]] = []
    for group, marks in zip(evaluation.groups, evaluation.right, strict=True):
        for completion, score, right in zip(group.completions, group.scores, marks, strict=True):
            rows.append(
                {
                    "prompt_id": group.prompt.id,
                    "prompt": group.prompt.text,
                    "completion": completion.text,
                    "right": right,
                    "reward": score.total,
                    **{f"reward/{name}": value for name, value in score.parts.items()},
                    "error": score.error,
                    "tokens": len(completion.token_ids),
                    "finish": completion.finish.value,
                }
            )
    names = dict.fromkeys(name for row in rows for name in row)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial:
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), partial)
