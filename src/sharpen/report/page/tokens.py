"""The tokens of one completion with what the training computed for each."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from sharpen.report.page.json_text import Json, rounded

STREAMS = (
    "coefficient",
    "weight",
    "advantage",
    "ratio",
    "logprob",
    "old_logprob",
    "rollout_logprob",
    "ref_logprob",
    "kl",
    "entropy",
    "value",
    "score",
    "step_reward",
)
"""The columns with a number for each token."""
COLUMNS = ("token_ids", "token_texts", "loss_mask", "clipped", *STREAMS)


def tokens_chunk(table: pa.Table, step: int, row: int) -> Json | None:
    """One row's tokens; None if it has none recorded. Streams that the method does not compute are left out."""
    if "token_ids" not in table.column_names or not 0 <= row < len(table):
        return None
    names = [name for name in COLUMNS if name in table.column_names]
    values: dict[str, Any] = table.select(names).slice(row, 1).to_pylist()[0]
    if values["token_ids"] is None:
        return None
    chunk: Json = {
        "step": step,
        "row": row,
        "ids": values["token_ids"],
        "texts": values["token_texts"],
        "trained": [int(trained) for trained in values["loss_mask"]],
    }
    if values.get("clipped") is not None:
        chunk["clipped"] = [None if clipped is None else int(clipped) for clipped in values["clipped"]]
    for name in STREAMS:
        numbers = rounded(values.get(name) or ())
        if any(number is not None for number in numbers):
            chunk[name] = numbers
    if "old_logprob" in chunk and "rollout_logprob" in chunk:
        # Before they are rounded: the difference is often smaller than that.
        pairs = zip(values["old_logprob"], values["rollout_logprob"], strict=True)
        chunk["mismatch"] = rounded([None if None in pair else pair[0] - pair[1] for pair in pairs])
    return chunk
