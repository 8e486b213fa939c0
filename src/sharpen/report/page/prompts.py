"""How each prompt's reward has moved: held-out prompts between two evaluations, training prompts between two visits."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sharpen.report.page.answers import Key
from sharpen.report.page.json_text import Json
from sharpen.runs.folder import RunFolder
from sharpen.runs.sample_files import SampleFiles

MOST_ROWS = 500
"""Prompts that are shown: those that changed most, upwards and downwards."""
MOST_CHARS = 300
_COLUMNS = ("step", "source", "prompt_id", "prompt", "reward")


def prompts_chunk(folder: RunFolder, most_rows: int = MOST_ROWS) -> Json:
    """The mean reward of each prompt at the first and at the last step that has it. Raises DataError for a damaged
    file."""
    held_out = folder.held_out_files.steps()
    return {
        "held_out": _moved(folder.held_out_files, {held_out[0], held_out[-1]}, most_rows)
        if len(held_out) > 1
        else None,
        "training": _moved(folder.sample_files, None, most_rows),
    }


def _moved(files: SampleFiles, steps: set[int] | None, most_rows: int) -> Json | None:
    """Of prompts that were asked at two steps or more, among ``steps`` if it is given; None if there is none."""
    if steps is None:
        tables: Iterable[pa.Table | None] = files.tables(_COLUMNS)
    else:
        tables = (files.of_step(step, _COLUMNS) for step in sorted(steps))
    first: dict[Key, dict[str, Any]] = {}
    last: dict[Key, dict[str, Any]] = {}
    texts: dict[Key, str] = {}
    visits = [visit for table in tables if table is not None for visit in _visits(table)]
    for key, text, visit in sorted(visits, key=lambda one: one[2]["step"]):
        first.setdefault(key, visit)
        last[key] = visit
        texts[key] = text
    rows = [
        {
            "prompt_id": key[1],
            "source": key[0] or None,
            "prompt": texts[key][:MOST_CHARS],
            "first": first[key],
            "last": last[key],
            "change": last[key]["mean"] - first[key]["mean"],
        }
        for key in first
        if first[key]["step"] != last[key]["step"]
    ]
    if not rows:
        return None
    rows.sort(key=lambda row: row["change"])
    shown = rows if len(rows) <= most_rows else [*rows[: most_rows // 2], *rows[-(most_rows // 2) :]]
    found = [row[end]["step"] for row in rows for end in ("first", "last")]
    return {"steps": [min(found), max(found)], "rows": shown, "left_out": len(rows) - len(shown)}


def _visits(table: pa.Table) -> list[tuple[Key, str, dict[str, Any]]]:
    """Each prompt at each step with its mean reward, over the completions that have one."""
    by = [name for name in ("step", "source", "prompt_id") if name in table.column_names]
    scored = table.filter(pc.is_valid(table["reward"]))
    grouped = scored.group_by(by, use_threads=False).aggregate(
        [("reward", "mean"), ("reward", "count"), ("prompt", "first")]
    )
    return [
        (
            (row.get("source") or "", row["prompt_id"]),
            row["prompt_first"],
            {"step": row["step"], "mean": row["reward_mean"], "n": row["reward_count"]},
        )
        for row in grouped.to_pylist()
    ]
