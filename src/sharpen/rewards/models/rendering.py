"""Rendering of a conversation with the scorer's chat template."""

from __future__ import annotations

from dataclasses import dataclass

from sharpen.data.chat import ChatFormat
from sharpen.data.chat.left_out import refuse_left_out
from sharpen.data.chat.messages import given_by
from sharpen.errors import DataError, RewardError
from sharpen.types import Prompt, Trajectory


@dataclass(frozen=True, slots=True)
class Rendered:
    """The tokens of a conversation that ends with the model's last answer.

    ``starts`` is the character at which this answer begins, None if the template changed it; ``offsets`` are the
    (start, end) characters of each token, empty if the tokenizer does not provide them.
    """

    token_ids: tuple[int, ...]
    starts: int | None
    offsets: tuple[tuple[int, int], ...]


def render(prompt: Prompt, trajectory: Trajectory, chat: ChatFormat) -> Rendered:
    """The prompt's messages and what was said after them, up to the model's last answer, in the scorer's ``chat``.

    The row's tools and documents go to the template if it writes them. Templates may strip a turn. Raises `RewardError`
    if the template rejects the conversation or leaves out what was said.
    """
    said = [dict(message) for message in trajectory.messages]
    while said and said[-1]["role"] != "assistant":
        said.pop()
    conversation = [*map(dict, prompt.messages), *said]
    where = f"prompt {prompt.id!r}"
    try:
        given = {name: value for name, value in given_by(prompt.row, where).items() if name in ("tools", "documents")}
        text = chat.text(conversation, where, given, add_generation_prompt=False)
        refuse_left_out(chat, conversation, where, {}, text=text)
    except DataError as error:
        raise RewardError(f"{error}. Or set template: policy to score the text that the policy read") from error
    tokenizer = chat.tokenizer
    encoded = tokenizer(text, add_special_tokens=False, verbose=False, return_offsets_mapping=tokenizer.is_fast)
    answer = trajectory.text
    spoken = answer.strip()
    found = text.rfind(spoken)
    blanks = len(answer) - len(answer.lstrip())
    return Rendered(
        tuple(encoded["input_ids"]),
        None if found < 0 else found - blanks,
        tuple(map(tuple, encoded.get("offset_mapping", ()))),
    )


def positions_of_ends(rendered: Rendered, ends: tuple[int, ...], text: str) -> tuple[int, ...] | None:
    """The tokens at which the steps end, for steps that end at characters ``ends`` of the answer ``text``.

    A step ends at the token that completes it, the last one at the first token after the answer, which ends the turn.
    None if the template changed the answer.
    """
    if rendered.starts is None:
        return None
    closing = rendered.starts + len(text.rstrip())
    last = next((i for i, (start, _) in enumerate(rendered.offsets) if start >= closing), len(rendered.offsets) - 1)
    inner = []
    token = 0
    for end in ends[:-1]:
        # Ends increase, so the search continues from the last token found.
        while rendered.offsets[token][1] < min(rendered.starts + end, closing):
            token += 1
        inner.append(token)
    return (*inner, last)


def common_start(sequences: list[tuple[int, ...]]) -> int:
    """The length of the sequences' common prefix."""
    length = 0
    for tokens in zip(*sequences, strict=False):
        if len(set(tokens)) > 1:
            break
        length += 1
    return length
