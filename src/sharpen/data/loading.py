"""What prompts and demonstrations share: which columns to read, what to do with rows that do not fit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeAlias, TypeVar

from transformers import PreTrainedTokenizerBase

from sharpen.data.rows import Rows
from sharpen.errors import DataError
from sharpen.suggest import did_you_mean

Overlong = Literal["error", "drop"]
Text: TypeAlias = str | list[Mapping[str, Any]]
"""What is said: a text, or messages."""
Item = TypeVar("Item")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Loaded(Generic[Item]):
    """The items made from rows, in their order, and how many rows were left out as too long."""

    items: tuple[Item, ...]
    dropped: int


def missing_column(rows: Rows, wanted: Sequence[str]) -> DataError:
    """The error for rows that have none of the ``wanted`` columns."""
    near = next(filter(None, (did_you_mean(column, rows.columns) for column in wanted)), "")
    needed = " or ".join(f"`{column}`" for column in wanted)
    have = ", ".join(f"`{column}`" for column in rows.columns)
    return DataError(f"{rows.name}: no column {needed}; it has {have}.{near} Rename the column that holds it")


def text_column(rows: Rows, column: str) -> list[str]:
    """A column that must hold a string in every row."""
    return typed_column(rows, column, str, "a string")


def typed_column(rows: Rows, column: str, type_: type[Value] | tuple[type[Value], ...], wanted: str) -> list[Value]:
    """A column that must hold a value of one type, which errors call ``wanted``, in every row."""
    return [_value(rows, index, row, column, type_, wanted) for index, row in enumerate(rows)]


def messages_column(rows: Rows, column: str) -> list[list[Mapping[str, Any]]]:
    """A column that must hold a conversation, a list of messages, in every row."""
    conversations: list[list[Mapping[str, Any]]] = typed_column(rows, column, list, "a list of messages")
    for index, messages in enumerate(conversations):
        check_messages(messages, f"{rows.where(index)}:", f"column `{column}`")
    return conversations


def check_messages(messages: Sequence[Any], where: str, name: str) -> None:
    """Raises DataError unless these are messages, at least one. ``where`` and ``name`` say what has them."""
    for number, message in enumerate(messages, start=1):
        _check_message(message, f"{where} message {number} of {name}")
    if not messages:
        raise DataError(f"{where} {name} has no messages; at least one is needed")


def said_column(rows: Rows, column: str, *, conversational: bool) -> list[Text]:
    """A column that must hold a conversation in every row, or else a string in every row."""
    return [*messages_column(rows, column)] if conversational else [*text_column(rows, column)]


def is_conversational(rows: Rows, column: str) -> bool:
    """Whether a column holds conversations, judged by its first row."""
    return isinstance(rows[0].get(column), list)


def tokenize(
    tokenizer: PreTrainedTokenizerBase, texts: list[str], *, add_special_tokens: bool
) -> list[tuple[int, ...]]:
    """Token ids of many texts at once, which is several times faster than one by one."""
    encoded = tokenizer(texts, add_special_tokens=add_special_tokens, return_attention_mask=False, verbose=False)
    return [tuple(ids) for ids in encoded["input_ids"]]


def keep_fitting(
    rows: Rows,
    items: Sequence[Item],
    tokens_needed: Callable[[Item], int],
    *,
    context_length: int,
    overlong: Overlong,
    explain: Callable[[Item], str],
) -> Loaded[Item]:
    """Leave out the items that need more than ``context_length`` tokens, or raise for the first of them.

    ``explain`` says for an item what its tokens are and what would make it fit. Raises DataError as well when
    none is left.
    """
    too_long = [index for index, item in enumerate(items) if tokens_needed(item) > context_length]
    if not too_long:
        return Loaded(tuple(items), dropped=0)
    first = too_long[0]
    reason = f"{explain(items[first])}; or leave such rows out with `overlong: drop`"
    if overlong == "error":
        raise DataError(f"{rows.where(first)}: does not fit into the context of {context_length} tokens: {reason}")
    if len(too_long) == len(items):
        raise DataError(f"{rows.name}: none of the {len(items)} rows fits into {context_length} tokens: {reason}")
    leave_out = set(too_long)
    kept = tuple(item for index, item in enumerate(items) if index not in leave_out)
    return Loaded(kept, dropped=len(too_long))


def _value(rows: Rows, index: int, row: Mapping[str, Any], column: str, type_: Any, wanted: str) -> Any:
    if column not in row:
        raise DataError(f"{rows.where(index)}: no column `{column}`, which other rows have; add it")
    value = row[column]
    if not isinstance(value, type_):
        raise DataError(
            f"{rows.where(index)}: column `{column}` must be {wanted}, not {type(value).__name__} ({repr(value)[:60]})"
        )
    return value


def _check_message(message: Any, where: str) -> None:
    said = ("content", "tool_calls")
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        raise DataError(f'{where} must be an object like {{"role": "user", "content": "…"}}, not {repr(message)[:60]}')
    if all(message.get(key) is None for key in said):
        raise DataError(f"{where} has no `content`; its keys are {', '.join(map(str, message))}")
