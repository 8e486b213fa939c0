"""Rows → prompts that fit into the model's context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from sharpen.data.chat import ChatFormat, Message
from sharpen.data.loading import (
    Loaded,
    Overlong,
    is_conversational,
    keep_fitting,
    messages_column,
    missing_column,
    text_column,
    tokenize,
)
from sharpen.data.rows import Rows
from sharpen.errors import DataError, RecipeError
from sharpen.types import Prompt


def load_prompts(
    rows: Rows,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_new_tokens: int,
    context_length: int,
    chat: bool = False,
    system: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    overlong: Overlong = "error",
) -> Loaded[Prompt]:
    """Make a prompt of every row.

    The prompt is column ``prompt``, a string or a list of messages, or else column ``messages``, which must
    not end with the assistant. A string is tokenised with the tokenizer's special tokens; with ``chat`` it
    becomes a user message. Messages go through the tokenizer's chat template with ``chat_template_kwargs``;
    ``system`` is put before conversations that begin with no system message of their own. ``row`` keeps all
    columns.

    Raises DataError for a missing column, a value of the wrong type, a prompt without tokens, and a prompt
    that leaves less than ``max_new_tokens`` of ``context_length`` (``overlong="drop"`` leaves it out and
    counts it).
    """
    if "prompt" in rows.columns:
        column, conversational = "prompt", is_conversational(rows, "prompt")
    elif "messages" in rows.columns:
        column, conversational = "messages", True
    else:
        raise missing_column(rows, ("prompt", "messages"))
    require_chat(system, chat=chat or conversational)

    if conversational:
        conversations = messages_column(rows, column)
        _require_open(rows, column, conversations)
    else:
        texts = text_column(rows, column)
        conversations = [as_user(text) for text in texts] if chat else []
    if conversations:
        format_ = ChatFormat(tokenizer, chat_template_kwargs or {}, system)
        texts = [format_.prompt_text(turns, rows.where(i)) for i, turns in enumerate(conversations)]
        conversations = [list(format_.with_system(turns)) for turns in conversations]
    token_ids = tokenize(tokenizer, texts, add_special_tokens=not conversations)

    prompts = []
    for index, (ids, text) in enumerate(zip(token_ids, texts, strict=True)):
        if not ids:
            raise DataError(f"{rows.where(index)}: column `{column}` gives a prompt without a token; write a prompt")
        messages = tuple(conversations[index]) if conversations else ()
        prompts.append(Prompt(rows.row_id(index), ids, text, rows[index], messages))

    return keep_fitting(
        rows,
        prompts,
        lambda prompt: len(prompt.token_ids) + max_new_tokens,
        context_length=context_length,
        overlong=overlong,
        explain=lambda prompt: (
            f"its prompt has {len(prompt.token_ids)} tokens and max_new_tokens is {max_new_tokens}. "
            "Make max_new_tokens smaller or the prompt shorter"
        ),
    )


def as_user(text: str) -> list[Message]:
    """A text as a conversation of one user message."""
    return [{"role": "user", "content": text}]


def require_chat(system: str | None, *, chat: bool) -> None:
    """A system message needs a conversation to stand in."""
    if system is not None and not chat:
        raise RecipeError("`system` is set, but the prompts are plain text: set `chat: true` to make them chats")


def _require_open(rows: Rows, column: str, conversations: list[list[Message]]) -> None:
    for index, messages in enumerate(conversations):
        if messages[-1]["role"] == "assistant":
            raise DataError(
                f"{rows.where(index)}: column `{column}` ends with the assistant's turn, which leaves "
                "nothing to answer; a prompt must end with another role (for SFT, read it as demonstrations)"
            )
