"""Rows as others write them → the columns that sharpen reads, see docs/data.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from sharpen.data.paths import paths_into, values_at
from sharpen.data.rows import Rows, read_rows
from sharpen.data.text_values import typed
from sharpen.data.turns import from_hh, from_sharegpt, is_hh, is_sharegpt, transposed
from sharpen.errors import DataError
from sharpen.suggest import did_you_mean
from sharpen.types import Message, Reads

CONVERSATION = ("conversations", "conversation", "dialogue", "dialog")
"""Columns of messages by other names."""
QUESTION = ("question", "problem", "query")
INPUT = ("input", "context")
"""What an instruction is about."""
RESPONSE = ("response", "output")
ANSWER = ("answer", "solution")
"""What a question may have for a response. Beside a ``prompt``, they may be there for a reward."""
PAIR = ("chosen", "rejected")
PAIRS = (
    ("chosen_response", "rejected_response"),
    ("response_chosen", "response_rejected"),
    ("preferred", "dispreferred"),
    ("preferred_output", "non_preferred_output"),
)
SYSTEM = ("system", "system_prompt")

_CHAT: Mapping[Reads, tuple[str, ...]] = {
    "prompts": ("prompt", "messages"),
    "demonstrations": ("prompt", "completion", "messages"),
    "preferences": ("prompt", *PAIR, *(name for pair in PAIRS for name in pair)),
    "steps": ("prompt",),
}
"""Columns that are read and may hold messages."""


def user_rows(source: Any, columns: Mapping[str, str], reads: Reads) -> Rows:
    """Rows of the user's own for what a method ``reads``, with the columns that `renamed` and `recognised` give.

    Raises DataError as `sharpen.data.rows.read_rows` does, and for a row that is unlike those before it.
    """
    return recognised(renamed(read_rows(source), columns), reads)


def renamed(rows: Rows, columns: Mapping[str, str]) -> Rows:
    """The rows with other names of columns; ``columns`` maps a new name to the present one.

    A present name that no column has may be a path into objects, ``reward_model.ground_truth``: what is there becomes a
    column too, and the objects stay.

    Raises DataError for a column that does not exist, for a row without what a path leads to, and for a new name that
    another column has.
    """
    if not columns:
        return rows
    paths = {name: column for name, column in columns.items() if column not in rows.columns}
    for name, column in paths.items():
        if not any(any(True for _ in values_at(row, column)) for row in rows):
            known = (*rows.columns, *paths_into(rows[0]))
            inside = next((path for path in known if path.endswith(f".{column}")), None)
            near = f" Did you mean `{inside}`?" if inside else did_you_mean(column, known)
            raise DataError(
                f"{rows.name}: no column `{column}`, which `data.columns` reads as `{name}`; it has "
                f"{_all(rows.columns)}.{near}"
            )
    for name, column in columns.items():
        if name in rows.columns and name not in columns.values():
            raise DataError(
                f"{rows.name}: `data.columns` reads `{column}` as `{name}`, but there is a column `{name}` too; to "
                f"keep both: `{{{name}: {column}, other_{name}: {name}}}`"
            )
    names: dict[str, list[str]] = {}
    for name, column in columns.items():
        names.setdefault(column, []).append(name)
    found = tuple(name for column in rows.columns for name in names.get(column, (column,)))

    def named(row: dict[str, Any], index: int) -> dict[str, Any]:
        reached = {name: _reached(row, path, name, rows.where(index)) for name, path in paths.items()}
        kept = {name: value for column, value in row.items() for name in names.get(column, (column,))}
        return {**kept, **reached}

    return replace(rows.converted(named), columns=(*found, *paths))


def _reached(row: Mapping[str, Any], path: str, name: str, where: str) -> Any:
    for value in values_at(row, path):
        return value
    raise DataError(f"{where}: no `{path}`, which other rows have and `data.columns` reads as `{name}`")


def recognised(rows: Rows, reads: Reads) -> Rows:
    """The rows with the columns that sharpen reads, where they are written in a form that many data sets have.

    Columns that rows have stay as they are, but for messages, which become lists of objects with ``role`` and
    ``content``. ``notes`` of the result say what was recognised. Rows of no known form are returned as they are.

    Raises DataError for a row that is unlike those before it.
    """
    rows = _as_messages(typed(rows, reads), reads)
    if reads == "preferences":
        rows = _as_pairs(rows)
    rows = _with_prompt(rows, reads)
    if reads == "demonstrations":
        rows = _with_completion(rows)
    return _alike(rows, reads)


def _as_messages(rows: Rows, reads: Reads) -> Rows:
    """Conversations in the forms of ShareGPT and of `datasets`, and single messages, as lists of messages."""
    others = () if _has_prompt(rows) else CONVERSATION
    for column in (name for name in (*_CHAT[reads], *others) if name in rows.columns):
        first = _first(rows, column)
        if isinstance(first, Mapping) and ("role" in first or is_sharegpt(first)):
            if any(isinstance(value, list) for value in (first.get("role"), first.get("from"))):
                note = f"`{column}` is lists of roles and of texts, as `datasets` stores messages"
                rows = _changed(rows, column, transposed, note)
            else:
                rows = _changed(rows, column, lambda message, what: [message])
            first = _first(rows, column)
        if is_sharegpt(first):
            rows = _changed(rows, column, from_sharegpt, f"`{column}` has the turns of ShareGPT, read as messages")
    return rows


def _as_pairs(rows: Rows) -> Rows:
    """Preferences with other names than ``chosen`` and ``rejected``, or in texts of whole conversations."""
    pair = next((pair for pair in PAIRS if {*pair} <= {*rows.columns}), None)
    if not {*PAIR} & {*rows.columns} and pair is not None:
        chosen, rejected = pair
        note = f"`{chosen}` is read as `chosen` and `{rejected}` as `rejected`"
        rows = _added(rows, PAIR, lambda row, where: {"chosen": row.get(chosen), "rejected": row.get(rejected)}, note)
    if {*PAIR} <= {*rows.columns}:
        first = _first(rows, "chosen")
        if "prompt" not in rows.columns and isinstance(first, str) and is_hh(first):
            rows = _changed(rows, "chosen", from_hh, "`chosen` and `rejected` are texts of HH-RLHF, read as messages")
            rows = _changed(rows, "rejected", from_hh)
    elif isinstance(_first(rows, "label"), bool) and "completions" not in rows.columns:
        raise DataError(
            f"{rows.name}: `label` marks single completions as good or bad, as KTO has them; preferences need a good "
            "and a bad one of the same prompt: join them to rows of `prompt`, `chosen` and `rejected`, or train with "
            "`sft` on the good ones alone"
        )
    return rows


def _with_prompt(rows: Rows, reads: Reads) -> Rows:
    if _has_prompt(rows):
        system = next((name for name in SYSTEM if isinstance(text := _first(rows, name), str) and text.strip()), None)
        if system is None:
            return rows
        note = f"`{system}` is no part of the prompt: put it into the messages, or set `data.system` if all are alike"
        return replace(rows, notes=(*rows.notes, note))
    found = next((name for name in CONVERSATION if _is_conversation(_first(rows, name))), None)
    if found is not None:
        name = "messages" if reads in ("prompts", "demonstrations") else "prompt"
        note = f"`{found}` is read as `{name}`"
        rows = _added(rows, (name,), lambda row, where: {name: _with_system(row, row.get(found))}, note)
        return _systems_left_out(rows, found)
    if isinstance(asked := _first(rows, "input"), Mapping) and _is_conversation(asked.get("messages")):
        note = "`messages` of `input` are read as `prompt`"
        return _added(rows, ("prompt",), lambda row, where: {"prompt": row["input"]["messages"]}, note)
    questions = [name for name in ("instruction", *QUESTION) if name in rows.columns]
    if len(questions) != 1:
        return rows
    (asked,) = questions
    given = next((name for name in INPUT if name in rows.columns), None) if asked == "instruction" else None
    before = [
        name for name in (*SYSTEM, "history") if name in rows.columns and any(_filled(row.get(name)) for row in rows)
    ]
    convert = partial(_prompt, asked=asked, given=given, as_messages=bool(before))
    parts = " and ".join(f"`{name}`" for name in (*before, asked, given) if name is not None)
    note = f"{parts} {'are' if before or given else 'is'} read as the prompt"
    # What a question is about, as in SQuAD, stands before it or after it: nobody can tell.
    beside = [name for name in INPUT if name != given and isinstance(text := _first(rows, name), str) and text.strip()]
    if beside:
        note += f", `{beside[0]}` is not: if it belongs there, write both into a column `prompt`"
    return _added(rows, ("prompt",), convert, note)


def _prompt(
    row: Mapping[str, Any], where: str, *, asked: str, given: str | None, as_messages: bool
) -> dict[str, str | list[Message]]:
    """The instruction, an empty line and what it is about; after a system message and earlier turns, if any row has
    these."""
    parts = [_text(row, asked, where)]
    if given is not None and _filled(row.get(given)):
        parts.append(_text(row, given, where))
    text = "\n\n".join(parts)
    if not as_messages:
        return {"prompt": text}
    earlier: list[Message] = []
    for turn in row.get("history") or ():
        if not isinstance(turn, list | tuple) or len(turn) != 2 or not all(isinstance(said, str) for said in turn):
            raise DataError(f"{where}: column `history` must be a list of [question, answer], not {repr(turn)[:60]}")
        earlier += [{"role": "user", "content": turn[0]}, {"role": "assistant", "content": turn[1]}]
    return {"prompt": _with_system(row, [*earlier, {"role": "user", "content": text}])}


def _with_completion(rows: Rows) -> Rows:
    """Demonstrations with a completion by another name."""
    names = (*RESPONSE, *ANSWER) if {*QUESTION} & {*rows.columns} else RESPONSE
    said = [name for name in names if name in rows.columns]
    if "prompt" in rows.columns and not {"completion", "messages"} & {*rows.columns} and len(said) == 1:
        (found,) = said
        note = f"`{found}` is read as `completion`"
        rows = _added(rows, ("completion",), lambda row, where: {"completion": row.get(found)}, note)
    if isinstance(_first(rows, "label"), bool) and "labels" not in rows.columns:
        bad = sum(row.get("label") is False for row in rows)
        note = f"`label` is false in {bad} of {len(rows)} rows, which are imitated all the same"
        rows = replace(rows, notes=(*rows.notes, note)) if bad else rows
    return rows


def _alike(rows: Rows, reads: Reads) -> Rows:
    """The texts of completions whose prompts are messages, and of prompts whose completions are, as messages."""
    prompt = _first(rows, "prompt")
    if isinstance(prompt, list):
        written = {"demonstrations": ("completion",), "preferences": PAIR}.get(reads, ())
        for column in written:
            if isinstance(_first(rows, column), str):
                rows = _changed(rows, column, partial(_said_by, role="assistant"))
    elif isinstance(prompt, str) and reads == "demonstrations" and _is_conversation(_first(rows, "completion")):
        rows = _changed(rows, "prompt", partial(_said_by, role="user"))
    return rows


def _said_by(text: Any, what: str, *, role: str) -> list[Message]:
    if not isinstance(text, str):
        raise DataError(f"{what} must be a text, as in other rows, not {type(text).__name__} ({repr(text)[:60]})")
    return [{"role": role, "content": text}]


def _systems_left_out(rows: Rows, conversation: str) -> Rows:
    """The rows with a note of those whose conversations begin with another system message than their column has."""
    left_out = dict.fromkeys(SYSTEM, 0)
    for row in rows if {*SYSTEM} & {*rows.columns} else ():
        name = next((name for name in SYSTEM if _filled(row.get(name))), None)
        messages: Any = row.get(conversation)
        if name is None or not _is_conversation(messages) or messages[0]["role"] != "system":
            continue
        left_out[name] += messages[0].get("content") != row[name]
    notes = [
        f"`{name}` is left out in {count} of {len(rows)} rows, whose conversations begin with another system message"
        for name, count in left_out.items()
        if count
    ]
    return replace(rows, notes=(*rows.notes, *notes)) if notes else rows


def _with_system(row: Mapping[str, Any], messages: Any) -> Any:
    """The messages after the row's system message, unless they begin with one."""
    text = next((row[name] for name in SYSTEM if _filled(row.get(name))), None)
    if text is None or not _is_conversation(messages) or messages[0]["role"] == "system":
        return messages
    return [{"role": "system", "content": text}, *messages]


def _added(
    rows: Rows, names: Sequence[str], convert: Callable[[dict[str, Any], str], Mapping[str, Any]], note: str
) -> Rows:
    """The rows with more columns. ``convert`` gives them, from a row and its place in errors."""
    converted = rows.converted(lambda row, index: {**row, **convert(row, rows.where(index))})
    return replace(converted, columns=(*rows.columns, *names), notes=(*rows.notes, note))


def _changed(rows: Rows, column: str, change: Callable[[Any, str], Any], note: str | None = None) -> Rows:
    """The rows with other values in a column. ``change`` gives them, from a value and its place in errors."""

    def changed(row: dict[str, Any], index: int) -> dict[str, Any]:
        if row.get(column) is None:
            return row
        return {**row, column: change(row[column], f"{rows.where(index)}: column `{column}`")}

    return replace(rows.converted(changed), notes=rows.notes if note is None else (*rows.notes, note))


def _first(rows: Rows, column: str) -> Any:
    """The value of the first row that has one; it says what the column holds."""
    if column not in rows.columns:
        return None
    return next((row[column] for row in rows if row.get(column) is not None), None)


def _text(row: Mapping[str, Any], column: str, where: str) -> str:
    value = row.get(column)
    if not isinstance(value, str):
        raise DataError(f"{where}: column `{column}` must be a text, not {type(value).__name__} ({repr(value)[:60]})")
    return value


def _filled(value: Any) -> bool:
    return bool(value.strip()) if isinstance(value, str) else bool(value)


def _has_prompt(rows: Rows) -> bool:
    return "prompt" in rows.columns or "messages" in rows.columns


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], Mapping) and "role" in value[0]


def _all(columns: Sequence[str]) -> str:
    return ", ".join(f"`{column}`" for column in columns)
