"""Rows → demonstrations: groups of one completion that supervised training imitates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
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
from sharpen.data.prompts import as_user, require_chat
from sharpen.data.rows import Rows
from sharpen.errors import DataError
from sharpen.types import Completion, Finish, Group, Prompt, Segment


def load_demonstrations(
    rows: Rows,
    tokenizer: PreTrainedTokenizerBase,
    *,
    context_length: int,
    chat: bool = False,
    system: str | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    overlong: Overlong = "error",
) -> Loaded[Group]:
    """Make a group of one completion of every row.

    Rows have ``prompt`` and ``completion``, both strings or both lists of messages, or else ``messages``,
    whose prompt is all that comes before the first turn of the assistant. Strings are tokenised apart, so
    that the prompt's tokens are what a rollout would feed, and the completion ends with the tokenizer's
    end-of-sequence token; with ``chat`` they become a user's and an assistant's message. Only what the
    assistant wrote in the completion is trained on. ``system``, ``chat_template_kwargs`` and ``overlong`` are
    those of `load_prompts`.

    Raises DataError for a missing column, a value of the wrong type, an empty prompt or completion, and a row
    longer than ``context_length``.
    """
    if {"prompt", "completion"} <= set(rows.columns):
        conversational = is_conversational(rows, "prompt")
    elif "messages" in rows.columns:
        conversational = True
    else:
        raise missing_column(rows, ("completion",) if "prompt" in rows.columns else ("prompt", "messages"))
    require_chat(system, chat=chat or conversational)

    if chat or conversational:
        format_ = ChatFormat(tokenizer, chat_template_kwargs or {}, system)
        groups = _from_conversations(rows, format_, conversational=conversational)
    else:
        groups = _from_text(rows, tokenizer)
    return keep_fitting(
        rows,
        groups,
        lambda group: len(group.prompt.token_ids) + len(group.completions[0].token_ids),
        context_length=context_length,
        overlong=overlong,
        explain=lambda group: (
            f"its prompt has {len(group.prompt.token_ids)} tokens and its completion "
            f"{len(group.completions[0].token_ids)}. Shorten it"
        ),
    )


def _from_text(rows: Rows, tokenizer: PreTrainedTokenizerBase) -> list[Group]:
    eos = tokenizer.eos_token_id
    if eos is None:
        raise DataError(
            f"the tokenizer of {tokenizer.name_or_path or 'this model'} has no end-of-sequence token, which "
            "demonstrations must end with: set its eos_token"
        )
    prompts, completions = text_column(rows, "prompt"), text_column(rows, "completion")
    prompt_ids = tokenize(tokenizer, prompts, add_special_tokens=True)
    completion_ids = tokenize(tokenizer, completions, add_special_tokens=False)
    groups = []
    for index in range(len(rows)):
        ids = completion_ids[index]
        for column, tokens in (("prompt", prompt_ids[index]), ("completion", ids)):
            if not tokens:
                raise DataError(f"{rows.where(index)}: column `{column}` is empty; write at least one token")
        if ids[-1] != eos:
            ids = (*ids, eos)
        prompt = Prompt(rows.row_id(index), prompt_ids[index], prompts[index], rows[index])
        groups.append(_group(prompt, ids, completions[index], (True,) * len(ids)))
    return groups


def _from_conversations(rows: Rows, format_: ChatFormat, *, conversational: bool) -> list[Group]:
    groups = []
    for index, (messages, start) in enumerate(_conversations(rows, conversational=conversational)):
        rendered = format_.demonstration(messages, start, rows.where(index))
        prompt = Prompt(rows.row_id(index), rendered.prompt_ids, rendered.prompt_text, rows[index])
        text = str(format_.tokenizer.decode(list(rendered.completion_ids), skip_special_tokens=True))
        groups.append(_group(prompt, rendered.completion_ids, text, rendered.trained))
    return groups


def _conversations(rows: Rows, *, conversational: bool) -> list[tuple[list[Message], int]]:
    """Every row's conversation, and the index of the message that its completion begins with."""
    if not {"prompt", "completion"} <= set(rows.columns):
        return [
            (messages, _first_assistant(messages, rows.where(index)))
            for index, messages in enumerate(messages_column(rows, "messages"))
        ]
    if conversational:
        prompts, completions = messages_column(rows, "prompt"), messages_column(rows, "completion")
        for index, messages in enumerate(completions):
            if messages[0]["role"] != "assistant":
                raise DataError(
                    f"{rows.where(index)}: column `completion` must begin with a message of the assistant, "
                    f"not of {messages[0]['role']!r}"
                )
    else:
        prompts = [as_user(text) for text in text_column(rows, "prompt")]
        completions = [[{"role": "assistant", "content": text}] for text in text_column(rows, "completion")]
    return [([*prompt, *completion], len(prompt)) for prompt, completion in zip(prompts, completions, strict=True)]


def _first_assistant(messages: Sequence[Message], where: str) -> int:
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            if index == 0:
                raise DataError(f"{where}: column `messages` begins with the assistant; put what it answers before it")
            return index
    raise DataError(f"{where}: column `messages` has no turn of the assistant, so there is nothing to imitate")


def _group(prompt: Prompt, ids: tuple[int, ...], text: str, trained: tuple[bool, ...]) -> Group:
    completion = Completion(ids, text, trained, _segments(trained), Finish.EOS)
    return Group(prompt, (completion,))


def _segments(trained: tuple[bool, ...]) -> tuple[Segment, ...]:
    """Runs of tokens by the model, and between them runs by others."""
    segments: list[Segment] = []
    for by_model, run in groupby(trained):
        start = segments[-1].end if segments else 0
        segments.append(Segment(start, start + len(list(run)), "model" if by_model else "tool"))
    return tuple(segments)
