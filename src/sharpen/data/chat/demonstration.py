"""A conversation → the samples that its assistant turns are trained in."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sharpen.data.chat.format import NOTHING, ChatFormat
from sharpen.data.chat.turn_end import turn_end
from sharpen.data.chat.written import written_after
from sharpen.data.tokens import continuation
from sharpen.errors import DataError
from sharpen.types import Message, Sample

_GENERATION_BLOCK = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True, slots=True)
class RenderedDemonstration:
    """A conversation cut into prompt and completion.

    ``samples`` are one run of tokens each; their ``loss_mask`` marks the tokens that the assistant wrote. ``turns`` are
    these tokens of each assistant turn.
    """

    prompt_text: str
    prompt_ids: tuple[int, ...]
    samples: tuple[Sample, ...]
    turns: tuple[tuple[int, ...], ...]


def demonstration(
    chat: ChatFormat, messages: Sequence[Message], start: int, where: str, given: Mapping[str, Any] = NOTHING
) -> RenderedDemonstration:
    """Split a conversation before its assistant turn ``messages[start]``.

    Before each assistant turn stands what a rollout would feed: the conversation so far with the generation prompt. The
    turn is what the template writes after that if the conversation ends there, up to and including the token that ends
    it (`turn_end`), all of which is trained on; or, if the template has ``{% generation %}`` blocks, what is inside of
    them, and the end. A turn continues the sample of the turn before if the tokens before it begin with exactly that
    sample's, and begins a new one if not, as where the template drops earlier thinking.

    Raises DataError for a turn that says nothing, and for one that does not follow its generation prompt.
    """
    shift = len(chat.with_system(messages)) - len(messages)
    messages = chat.with_system(messages)
    turns = [i for i in range(start + shift, len(messages)) if messages[i]["role"] == "assistant"]
    samples: list[Sample] = []
    written = []
    prompt_text = ""
    for turn in turns:
        name = f"{where}: message {chat.number(messages, turn)} (assistant)"
        before = chat.text(messages[:turn], where, given, add_generation_prompt=True)
        prefix_ids = chat.tokenize(before)
        ids, mask = _turn(chat, messages, turn, before, prefix_ids, where, name, given)
        samples = _with_turn(samples, prefix_ids, ids, mask)
        written.append(ids)
        prompt_text = prompt_text or before
    return RenderedDemonstration(prompt_text, samples[0].prefix_ids, tuple(samples), tuple(written))


def _turn(
    chat: ChatFormat,
    messages: Sequence[Message],
    turn: int,
    before: str,
    prefix_ids: tuple[int, ...],
    where: str,
    name: str,
    given: Mapping[str, Any],
) -> tuple[tuple[int, ...], tuple[bool, ...]]:
    """The tokens of one turn, and which of them are trained on."""
    so_far = messages[: turn + 1]
    whole = chat.text(so_far, where, given, add_generation_prompt=False)
    follows = whole.startswith(before)
    text = whole[len(before) :] if follows else written_after(chat, before, whole, so_far, where, given)
    usual = "tool" if messages[turn].get("tool_calls") else "user"
    next_role = messages[turn + 1]["role"] if turn + 1 < len(messages) else usual
    said, appended = turn_end(chat).closed(text, next_role)
    ids = continuation(chat.tokenizer, before, prefix_ids, said)
    mask = [True] * len(ids)
    if follows and _GENERATION_BLOCK.search(chat.template(given)):
        mask = _inside_blocks(chat, so_far, prefix_ids, before, said, ids, where, given)
        if not any(mask):
            raise DataError(
                f"{name}: the {{% generation %}} block of the chat template, which marks what is trained on, holds "
                "nothing of it"
            )
        mask[-1] = True
    return (*ids, *appended), (*mask, *(True for _ in appended))


def _with_turn(
    samples: Sequence[Sample], prefix_ids: tuple[int, ...], ids: tuple[int, ...], mask: tuple[bool, ...]
) -> list[Sample]:
    if samples:
        last = samples[-1]
        length = len(last.prefix_ids) + len(last.token_ids)
        added = prefix_ids[length:]
        # Two turns without a token between them would be read as one.
        if added and prefix_ids[:length] == (*last.prefix_ids, *last.token_ids):
            token_ids = (*last.token_ids, *added, *ids)
            loss_mask = (*last.loss_mask, *(False for _ in added), *mask)
            return [*samples[:-1], Sample(last.prefix_ids, token_ids, loss_mask)]
    return [*samples, Sample(prefix_ids, ids, mask)]


def _inside_blocks(
    chat: ChatFormat,
    messages: Sequence[Message],
    prefix_ids: tuple[int, ...],
    before: str,
    said: str,
    ids: tuple[int, ...],
    where: str,
    given: Mapping[str, Any],
) -> list[bool]:
    """Which tokens of a turn the template's ``{% generation %}`` blocks hold."""
    rendered = chat.apply(
        messages,
        where,
        given,
        return_dict=True,
        return_assistant_tokens_mask=True,
        tokenizer_kwargs={"return_offsets_mapping": True},
    )
    whole_ids, inside = tuple(rendered["input_ids"]), [held == 1 for held in rendered["assistant_masks"]]
    start, stop = len(prefix_ids), len(prefix_ids) + len(ids)
    if whole_ids[:stop] == (*prefix_ids, *ids):
        return inside[start:stop]
    # The turn and what is before it are not tokenised as their whole: count the tokens up to each end of a block.
    mask = [False] * len(ids)
    for (first, last), held in zip(rendered["offset_mapping"], inside, strict=True):
        edges = [min(max(edge - len(before), 0), len(said)) for edge in (first, last)]
        if held and edges[0] < edges[1]:
            begin, end = (len(continuation(chat.tokenizer, before, prefix_ids, said[:edge])) for edge in edges)
            mask[begin:end] = [True] * len(mask[begin:end])
    return mask
