"""Reading columns of text, messages and other values, with errors that name the row and the column."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, TypeAlias, TypeVar

from sharpen.data.chat.messages import without_nulls
from sharpen.data.rows import Rows
from sharpen.errors import DataError
from sharpen.suggest import did_you_mean

Text: TypeAlias = str | list[Mapping[str, Any]]
"""A plain text, or messages."""
Value = TypeVar("Value")

ITEM_COLUMNS = (
    *("prompt", "messages", "completion", "chosen", "rejected", "completions", "margin", "scores", "ranks"),
    *("steps", "positions", "labels", "tools", "functions", "documents", "chat_template_kwargs"),
)
"""The columns that prompts and completions are made of."""

WHOLE_TEXTS = "A column `text` of whole texts has no prompt: split it into `prompt` and `completion`."


def missing_column(rows: Rows, wanted: Sequence[str]) -> DataError:
    """The error for rows without any of the ``wanted`` columns."""
    near = next(filter(None, (did_you_mean(column, rows.columns) for column in wanted)), "")
    needed = " or ".join(f"`{column}`" for column in wanted)
    have = ", ".join(f"`{column}`" for column in rows.columns)
    whole = f" {WHOLE_TEXTS}" if "text" in rows.columns else ""
    return DataError(
        f"{rows.name}: no column {needed}; it has {have}.{whole}{near} If another column holds it, say which: "
        f"`data.columns: {{{wanted[0]}: COLUMN}}`"
    )


def text_column(rows: Rows, column: str) -> list[str]:
    """A column that must hold a string in every row."""
    return typed_column(rows, column, str, "a string")


def typed_column(rows: Rows, column: str, type_: type[Value] | tuple[type[Value], ...], wanted: str) -> list[Value]:
    """A column that must hold a value of ``type_`` in every row; errors call the type ``wanted``."""
    return [_value(rows, index, row, column, type_, wanted) for index, row in enumerate(rows)]


def messages_column(rows: Rows, column: str) -> list[list[Mapping[str, Any]]]:
    """A column that must hold a conversation, a list of messages, in every row; without the keys that are null."""
    conversations: list[list[Mapping[str, Any]]] = typed_column(rows, column, list, "a list of messages")
    for index, messages in enumerate(conversations):
        check_messages(messages, f"{rows.where(index)}:", f"column `{column}`")
    # Arrow gives every object the keys of all others, in each column those of its own.
    return [without_nulls(messages) for messages in conversations]


def check_messages(messages: Sequence[Any], where: str, name: str) -> None:
    """Raises DataError unless these are one or more messages. ``where`` and ``name`` locate them in errors."""
    for number, message in enumerate(messages, start=1):
        _check_message(message, f"{where} message {number} of {name}")
    if not messages:
        raise DataError(f"{where} {name} has no messages; at least one is needed")


def said_column(rows: Rows, column: str, *, conversational: bool) -> list[Text]:
    """A column that must hold a conversation in every row, or else a string in every row."""
    return [*messages_column(rows, column)] if conversational else [*text_column(rows, column)]


def is_conversational(rows: Rows, column: str) -> bool:
    """Whether a column holds conversations, judged by its first row."""
    return isinstance(rows.example.get(column), list)


def number_of(rows: Rows, index: int, column: str) -> float:
    """The finite number in a column of one row."""
    return _finite(_present(rows, index, rows[index], column), f"{rows.where(index)}: column `{column}`")


def numbers_of(rows: Rows, index: int, column: str) -> tuple[float, ...]:
    """The finite numbers in the list that a column of one row holds."""
    values = _present(rows, index, rows[index], column)
    where = f"{rows.where(index)}: column `{column}`"
    if not isinstance(values, list):
        raise DataError(f"{where} must be a list of numbers, not {type(values).__name__} ({repr(values)[:60]})")
    return tuple(_finite(value, f"{where}, entry {i}") for i, value in enumerate(values, start=1))


def _present(rows: Rows, index: int, row: Mapping[str, Any], column: str) -> Any:
    if column not in row:
        raise DataError(f"{rows.where(index)}: no column `{column}`, which other rows have; add it")
    return row[column]


def _finite(value: Any, what: str) -> float:
    if not isinstance(value, Real):
        raise DataError(f"{what} must be a number, not {type(value).__name__} ({repr(value)[:60]})")
    try:
        number = float(value)
    except OverflowError as error:
        raise DataError(f"{what} is too large: a number goes up to 1.8e308") from error
    if not math.isfinite(number):
        raise DataError(f"{what} is {value}; it must be a finite number")
    return number


def _value(rows: Rows, index: int, row: Mapping[str, Any], column: str, type_: Any, wanted: str) -> Any:
    value = _present(rows, index, row, column)
    if not isinstance(value, type_):
        raise DataError(
            f"{rows.where(index)}: column `{column}` must be {wanted}, not {type(value).__name__} ({repr(value)[:60]})"
        )
    return value


def _check_message(message: Any, where: str) -> None:
    said = ("content", "tool_calls", "function_call")
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise DataError(f'{where} must be an object like {{"role": "user", "content": "…"}}, not {repr(message)[:60]}')
    if all(message.get(key) is None for key in said):
        raise DataError(f"{where} has no `content`; its keys are {', '.join(map(str, message))}")
