"""Rows to measure on: how to set some aside, and whether they are also trained on."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

from sharpen.data.rows import Rows
from sharpen.scaffold.source import Source

SHARE = 10
"""One row in so many is to be held out, and at most MOST."""
MOST = 200


def how_to_hold_out(source: Source) -> str:
    """Lines of a comment that say how rows are held out, for a source that has no such part."""
    count = min(MOST, max(1, len(source.rows) // SHARE))
    lines = ["No held-out rows: nothing measures whether the model gets better at new ones."]
    if source.kind == "hub":
        if source.train.endswith("split=train"):
            lines += [f"train: {source.train}[:90%]", f"held_out: {source.train}[90%:]"]
        else:
            lines += ["Take slices of the split: split=NAME[:90%] in train and split=NAME[90%:] in held_out."]
        return "\n".join([*lines, "Then set evaluation.every."])
    if source.kind == ".jsonl":
        path = Path(source.train)
        names = [str(path.with_name(f"{path.stem}_{part}.jsonl")) for part in ("train", "held_out")]
        given, train, held_out = (shlex.quote(name) for name in (source.train, *names))
        lines += [
            "In the shell, if the order of the rows is of no importance:",
            f"  head -n {count} {given} > {held_out}",
            f"  tail -n +{count + 1} {given} > {train}",
            f"and `sharpen init {train}` uses both.",
        ]
        return "\n".join(lines)
    return "\n".join(
        [
            *lines,
            f"Put some {count} of the rows into a file of their own, and add held_out: FILE here,",
            "and evaluation.",
        ]
    )


def shared_prompts(train: Rows, held_out: Rows, asked: str | None) -> int:
    """How many held-out rows have a prompt that is trained on."""
    if asked is None or asked not in held_out.columns:
        return 0
    seen = {_text(row.get(asked)) for row in train}
    return sum(_text(row.get(asked)) in seen for row in held_out)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
