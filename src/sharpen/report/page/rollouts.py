"""The completions of one step as the page shows them: groups of a prompt, from a sample file's rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from sharpen.report.page.json_text import Json, finite

MOST_CHARS = 50_000
"""A text of more characters is cut, and says so."""
PER_TOKEN = "token_ids"
"""The column that a step has whose tokens were recorded."""
REWARD = "reward/"

COLUMNS = (
    "step",
    "source",
    "prompt_id",
    "prompt",
    "completion",
    "reward",
    "error",
    "refused",
    "tokens",
    "finish",
    "draw_id",
    "policy_version",
    "end",
    "turns",
    "samples",
    "messages",
    "right",
    "answer",
)


def step_chunk(table: pa.Table, kind: str, step: int) -> Json:
    """The groups of a step in the order in which they were drawn; each row with its number in the step."""
    parts = [name for name in table.column_names if name.startswith(REWARD)]
    wanted = [name for name in (*COLUMNS, *parts) if name in table.column_names]
    recorded = table[PER_TOKEN].is_valid().to_pylist() if PER_TOKEN in table.column_names else [False] * len(table)
    groups: list[Json] = []
    group_of: dict[tuple[str, str], Json] = {}
    for number, row in enumerate(table.select(wanted).to_pylist()):
        key = (str(row.get("source") or ""), str(row["prompt_id"]))
        group = group_of.get(key)
        if group is None:
            prompt, cut = _cut(row["prompt"])
            group = {"prompt_id": key[1], "prompt": prompt, "cut": cut, "source": key[0] or None, "rows": []}
            group_of[key] = group
            groups.append(group)
        group["rows"].append(_row(number, row, parts, recorded[number]))
    return {"step": step, "kind": kind, "groups": groups}


def _row(number: int, row: Mapping[str, Any], parts: Sequence[str], has_tokens: bool) -> Json:
    completion, cut = _cut(row["completion"])
    return {
        "row": number,
        "completion": completion,
        "cut": cut,
        "reward": finite(row["reward"]),
        "parts": {part.removeprefix(REWARD): finite(row[part]) for part in parts},
        "error": _short(row.get("error")),
        "refused": _short(row.get("refused")),
        "tokens": row["tokens"],
        "finish": row["finish"],
        "end": row.get("end"),
        "turns": row.get("turns"),
        "messages": _messages(row.get("messages")),
        "right": row.get("right"),
        "answer": _short(row.get("answer")),
        "draw_id": row["draw_id"],
        "policy_version": row["policy_version"],
        "has_tokens": has_tokens,
    }


def _messages(text: str | None) -> list[Json] | None:
    """A conversation of more than one message; a single answer is the completion itself."""
    messages = [] if text is None else json.loads(text)
    if len(messages) < 2:
        return None
    return [{key: _text(value) for key, value in message.items()} for message in messages]


def _text(value: Any) -> str:
    return _cut(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))[0]


def _short(text: str | None) -> str | None:
    return None if text is None else _cut(text)[0]


def _cut(text: str) -> tuple[str, bool]:
    return (text, False) if len(text) <= MOST_CHARS else (text[:MOST_CHARS], True)
