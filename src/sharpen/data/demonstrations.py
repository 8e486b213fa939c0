"""Rows → demonstrations: groups of one completion for supervised fine-tuning."""

from __future__ import annotations

from collections.abc import Sequence

from sharpen.data.columns import is_conversational, messages_column, missing_column, said_column
from sharpen.data.exchanges import Exchange, fitting_groups, make_groups
from sharpen.data.prompt_format import Loaded, PromptFormat
from sharpen.data.rows import Rows
from sharpen.errors import DataError
from sharpen.types import Group, Message


def load_demonstrations(rows: Rows, format: PromptFormat) -> Loaded[Group]:
    """Make a group of one completion of every row.

    Rows have ``prompt`` and ``completion``, both strings or both lists of messages, or else ``messages``, whose prompt
    is everything before the first assistant turn. `make_groups` says how they are tokenised.

    Raises DataError for a missing column, a value of the wrong type, an empty prompt or completion, and a row longer
    than the context.
    """
    if {"prompt", "completion"} <= set(rows.columns):
        conversational = is_conversational(rows, "prompt")
        prompts, completions = (said_column(rows, c, conversational=conversational) for c in ("prompt", "completion"))
        exchanges = [
            Exchange(prompt, (completion,), ("column `completion`",))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
    elif "messages" in rows.columns:
        exchanges = [_cut(messages, rows.where(i)) for i, messages in enumerate(messages_column(rows, "messages"))]
    else:
        raise missing_column(rows, ("completion",) if "prompt" in rows.columns else ("prompt", "messages"))
    return fitting_groups(rows, make_groups(rows, exchanges, format), format)


def _cut(messages: list[Message], where: str) -> Exchange:
    start = _first_assistant(messages, where)
    return Exchange(messages[:start], (messages[start:],), ("column `messages`",))


def _first_assistant(messages: Sequence[Message], where: str) -> int:
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            if index == 0:
                raise DataError(f"{where}: column `messages` begins with an assistant turn; put a prompt before it")
            return index
    raise DataError(f"{where}: column `messages` has no assistant turn, so there is nothing to train on")
