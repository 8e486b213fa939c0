"""A conversation → the samples that its assistant turns are trained in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sharpen.data.chat.format import NOTHING, ChatFormat
from sharpen.data.chat.turn_end import end_of_turn
from sharpen.errors import DataError
from sharpen.types import Message, Sample

_GENERATION_BLOCK = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True, slots=True)
class RenderedDemonstration:
    """A conversation cut into prompt and completion.

    ``samples`` are one run of tokens each; their ``loss_mask`` marks the tokens that the assistant wrote.
    """

    prompt_text: str
    prompt_ids: tuple[int, ...]
    samples: tuple[Sample, ...]


def demonstration(
    chat: ChatFormat, messages: Sequence[Message], start: int, where: str, given: Mapping[str, Any] = NOTHING
) -> RenderedDemonstration:
    """Split a conversation before its assistant turn ``messages[start]``.

    The prompt is what a rollout would feed; the completion ends with the last token of an assistant turn. The loss
    mask covers the content of each assistant turn and the token that ends it, but not the line break after that, nor
    other turns. It comes from the template's ``{% generation %}`` block, or without one from the text that each turn
    adds to the rendered conversation.
    """
    shift = len(chat.with_system(messages)) - len(messages)
    messages, start = chat.with_system(messages), start + shift
    prompt_text = chat.text(messages[:start], where, given, add_generation_prompt=True)
    prompt_ids = chat.tokenize(prompt_text)
    if _GENERATION_BLOCK.search(chat.tokenizer.get_chat_template()):
        ids, mask = _template_mask(chat, messages, where, given)
    else:
        ids, mask = _prefix_mask(chat, messages, start, where, given)
    _require_prefix(prompt_ids, ids, f"{where}: the prompt before message {start + 1 - shift}")

    trained = mask[len(prompt_ids) :]
    if not any(trained):
        raise DataError(f"{where}: the chat template renders no token for the assistant's turns")
    end = max(i for i, is_trained in enumerate(trained) if is_trained) + 1
    sample = Sample(prompt_ids, ids[len(prompt_ids) :][:end], tuple(trained[:end]))
    return RenderedDemonstration(prompt_text, prompt_ids, (sample,))


def _template_mask(
    chat: ChatFormat, messages: Sequence[Message], where: str, given: Mapping[str, Any]
) -> tuple[tuple[int, ...], list[bool]]:
    rendered = chat.apply(messages, where, given, return_dict=True, return_assistant_tokens_mask=True)
    return tuple(rendered["input_ids"]), [written == 1 for written in rendered["assistant_masks"]]


def _prefix_mask(
    chat: ChatFormat, messages: Sequence[Message], start: int, where: str, given: Mapping[str, Any]
) -> tuple[tuple[int, ...], list[bool]]:
    ids = chat.tokenize(chat.text(messages, where, given, add_generation_prompt=False))
    mask = [False] * len(ids)
    for turn in range(start, len(messages)):
        if messages[turn]["role"] != "assistant":
            continue
        before = chat.tokenize(chat.text(messages[:turn], where, given, add_generation_prompt=True))
        after = chat.tokenize(chat.text(messages[: turn + 1], where, given, add_generation_prompt=False))
        for prefix in (before, after):
            _require_prefix(prefix, ids, f"{where}: the conversation around its assistant turn {turn + 1}")
        end = end_of_turn(chat.tokenizer, after, len(before))
        mask[len(before) : end] = [True] * (end - len(before))
    return ids, mask


def _require_prefix(prefix: tuple[int, ...], whole: tuple[int, ...], what: str) -> None:
    if whole[: len(prefix)] != prefix:
        raise DataError(
            f"{what} is rendered differently once the conversation continues, so its tokens cannot be identified. Some "
            "chat templates drop the thinking of earlier turns: split such a conversation into one row per assistant "
            "turn, or use a template that keeps it"
        )
