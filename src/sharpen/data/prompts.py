"""Rows → prompts that fit into the model's context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from sharpen.data.chat import ChatFormat
from sharpen.data.chat.left_out import check_row
from sharpen.data.chat.messages import given_by, with_text
from sharpen.data.columns import is_conversational, messages_column, missing_column, text_column
from sharpen.data.prompt_format import Loaded, PromptFormat
from sharpen.data.rows import Rows
from sharpen.data.tokens import prompt_ids, token_ids
from sharpen.errors import DataError
from sharpen.types import Message, Prompt


def load_prompts(rows: Rows, format: PromptFormat, *, max_new_tokens: int) -> Loaded[Prompt]:
    """Make a prompt of every row.

    The prompt is column ``prompt``, a string or a list of messages, or else column ``messages``, which must not end
    with the assistant. A string is tokenised by `prompt_ids` unless it becomes a user message (see `PromptFormat`).
    ``row`` keeps all columns.

    Raises DataError for a missing column, a value of the wrong type, a prompt without tokens, one that is no
    Unicode, and one that leaves fewer than ``max_new_tokens`` tokens of the context.
    """
    if "prompt" in rows.columns:
        column, conversational = "prompt", is_conversational(rows, "prompt")
    elif "messages" in rows.columns:
        column, conversational = "messages", True
    else:
        raise missing_column(rows, ("prompt", "messages"))
    chat = format.chat_format(conversational=conversational)

    if conversational:
        conversations = messages_column(rows, column)
        _require_open(rows, column, conversations)
    else:
        texts = text_column(rows, column)
        conversations = [as_user(text) for text in texts] if chat else []
    if chat:
        conversations = [list(chat.with_system(turns)) for turns in conversations]
        given = [given_by(row, rows.where(index)) for index, row in enumerate(rows)]
        texts = [_rendered(chat, turns, rows.where(i), given[i]) for i, turns in enumerate(conversations)]
    ids_of_all = (token_ids if chat else prompt_ids)(format.tokenizer, texts)

    prompts = []
    for index, (ids, text) in enumerate(zip(ids_of_all, texts, strict=True)):
        if not ids:
            raise DataError(f"{rows.where(index)}: column `{column}` gives a prompt without a token; write a prompt")
        prompt = Prompt(rows.row_id(index), ids, text, rows[index])
        if chat:
            messages = tuple(with_text(message) for message in conversations[index])
            arguments = {**chat.template_kwargs, **given[index]}
            prompt = replace(prompt, messages=messages, template_arguments=arguments)
        prompts.append(prompt)

    return format.fitting(
        rows,
        prompts,
        lambda prompt: (prompt.token_ids,),
        lambda prompt: len(prompt.token_ids) + max_new_tokens,
        lambda prompt: (
            f"its prompt has {len(prompt.token_ids)} tokens and max_new_tokens is {max_new_tokens}. "
            "Make max_new_tokens smaller or the prompt shorter"
        ),
    )


def _rendered(chat: ChatFormat, messages: Sequence[Message], where: str, given: Mapping[str, Any]) -> str:
    text = chat.text(messages, where, given, add_generation_prompt=True)
    check_row(chat, messages, where, given, text=text)
    return text


def as_user(text: str) -> list[Message]:
    """A conversation of one user message."""
    return [{"role": "user", "content": text}]


def _require_open(rows: Rows, column: str, conversations: list[list[Message]]) -> None:
    for index, messages in enumerate(conversations):
        if messages[-1]["role"] == "assistant":
            raise DataError(
                f"{rows.where(index)}: column `{column}` ends with an assistant turn, which leaves nothing to "
                "answer; a prompt must end with another role (for SFT, read it as demonstrations)"
            )
