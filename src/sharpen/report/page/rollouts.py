"""The completions of one step as the page shows them: groups of a prompt, from a sample file's rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from sharpen.report.page.json_text import Json, finite

MOST_CHARS = 50_000
"""A text of more characters is cut, and says so."""
MOST_SHORT_CHARS = 2_000
"""Of an error, or an answer that was extracted."""
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
    PER_TOKEN,
)


def columns_read(names: Sequence[str]) -> list[str]:
    """Those columns of a sample file that `step_chunk` needs."""
    return [name for name in names if name in COLUMNS or name.startswith(REWARD)]


def step_chunk(table: pa.Table, kind: str, step: int, most_chars: int = MOST_CHARS) -> Json:
    """The groups of a step in the order in which they were drawn; each row with its number in the step.

    A prompt, a completion or a conversation of more than ``most_chars`` is cut there.
    """
    parts = [name for name in table.column_names if name.startswith(REWARD)]
    recorded = table[PER_TOKEN].is_valid().to_pylist() if PER_TOKEN in table.column_names else [False] * len(table)
    wanted = [name for name in columns_read(table.column_names) if name != PER_TOKEN]
    groups: list[Json] = []
    group_of: dict[tuple[str, str], Json] = {}
    for number, row in enumerate(table.select(wanted).to_pylist()):
        key = (str(row.get("source") or ""), str(row["prompt_id"]))
        group = group_of.get(key)
        if group is None:
            prompt, cut = _cut(row["prompt"], most_chars)
            group = {"prompt_id": key[1], "prompt": prompt, "cut": cut, "source": key[0] or None, "rows": []}
            group_of[key] = group
            groups.append(group)
        group["rows"].append(_row(number, row, parts, recorded[number], most_chars))
    return {"step": step, "kind": kind, "groups": groups}


def _row(number: int, row: Mapping[str, Any], parts: Sequence[str], has_tokens: bool, most_chars: int) -> Json:
    completion, cut = _cut(row["completion"], most_chars)
    messages, messages_cut = _messages(row.get("messages"), most_chars)
    return {
        "row": number,
        "completion": completion,
        "cut": cut or messages_cut,
        "reward": finite(row["reward"]),
        "parts": {part.removeprefix(REWARD): finite(row[part]) for part in parts},
        "error": _short(row.get("error")),
        "refused": _short(row.get("refused")),
        "tokens": row["tokens"],
        "finish": row["finish"],
        "end": row.get("end"),
        "turns": row.get("turns"),
        "messages": messages,
        "right": row.get("right"),
        "answer": _short(row.get("answer")),
        "draw_id": row["draw_id"],
        "policy_version": row["policy_version"],
        "has_tokens": has_tokens,
    }


def _messages(text: str | None, most_chars: int) -> tuple[list[Json] | None, bool]:
    """A conversation of more than one message; a single answer is the completion itself. And whether it is cut."""
    messages = [] if text is None else json.loads(text)
    if len(messages) < 2:
        return None, False
    room, any_cut = most_chars, False
    shown: list[Json] = []
    for message in messages:
        if room <= 0:
            return shown, True
        shown.append({})
        for key, value in message.items():
            content = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            shown[-1][key], cut = _cut(content, MOST_SHORT_CHARS if key == "role" else max(room, 0))
            room -= len(shown[-1][key])
            any_cut |= cut
    return shown, any_cut


def _short(text: str | None) -> str | None:
    return None if text is None else _cut(text, MOST_SHORT_CHARS)[0]


def _cut(text: str, most_chars: int) -> tuple[str, bool]:
    return text[:most_chars], len(text) > most_chars
