"""Prompts and their given completions → groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sharpen.data.chat import ChatFormat, demonstration
from sharpen.data.chat.messages import given_by
from sharpen.data.columns import Text
from sharpen.data.prompt_format import Loaded, PromptFormat
from sharpen.data.prompts import as_user
from sharpen.data.rows import Rows
from sharpen.data.tokens import check_text, continuations, prompt_ids
from sharpen.errors import DataError
from sharpen.types import Group, Message, Prompt, Trajectory, single_turn


@dataclass(frozen=True, slots=True)
class Exchange:
    """A row's prompt and completions, all texts or all messages; ``names`` are what errors call the completions."""

    prompt: Text
    completions: tuple[Text, ...]
    names: tuple[str, ...]


def make_groups(rows: Rows, exchanges: Sequence[Exchange], format: PromptFormat) -> list[Group]:
    """One group per row, with its completions in order.

    The tokens of a plain text prompt are those a rollout would feed; a completion's are those that follow them (see
    `continuations`), and end with the tokenizer's end-of-sequence token. Messages go through the chat template, and
    only what the assistant wrote in the completion is trained on.

    Raises DataError for an empty prompt or completion, for one that is no Unicode, and for a completion that does not
    begin with the assistant.
    """
    # The first row decides whether the rows are conversations: they are all alike.
    chat = format.chat_format(conversational=not isinstance(exchanges[0].prompt, str))
    if chat is None:
        return _from_texts(rows, exchanges, format)
    return [_rendered(rows, index, exchange, chat) for index, exchange in enumerate(exchanges)]


def fitting_groups(
    rows: Rows, groups: Sequence[Group], format: PromptFormat, noun: str = "completion"
) -> Loaded[Group]:
    """The groups whose prompt and longest completion, called ``noun`` in errors, fit into the context."""

    def longest(group: Group) -> int:
        return max(len(trajectory.token_ids) for trajectory in group.trajectories)

    return format.fitting(
        rows,
        groups,
        _sequences,
        lambda group: len(group.prompt.token_ids) + longest(group),
        lambda group: (
            f"its prompt has {len(group.prompt.token_ids)} tokens and its {noun} {longest(group)}. Shorten it"
        ),
    )


def _sequences(group: Group) -> list[tuple[int, ...]]:
    samples = [sample for trajectory in group.trajectories for sample in trajectory.samples]
    # The prefix of a first sample is the prompt.
    prefixes = [sample.prefix_ids for sample in samples if sample.prefix_ids != group.prompt.token_ids]
    return [group.prompt.token_ids, *prefixes, *(sample.token_ids for sample in samples)]


def _from_texts(rows: Rows, exchanges: Sequence[Exchange], format: PromptFormat) -> list[Group]:
    eos = format.tokenizer.eos_token_id
    if eos is None:
        raise DataError(
            f"the tokenizer of {format.tokenizer.name_or_path or 'this model'} has no end-of-sequence token, which "
            "completions must end with: set its eos_token"
        )
    before, texts = [], []
    for index, exchange in enumerate(exchanges):
        check_text(exchange.prompt, f"{rows.where(index)}: column `prompt`")
        for completion, name in zip(exchange.completions, exchange.names, strict=True):
            check_text(completion, f"{rows.where(index)}: {name}")
            before.append(index)
            texts.append(str(completion))
    prompts = [str(exchange.prompt) for exchange in exchanges]
    ids_of_prompts = prompt_ids(format.tokenizer, prompts)
    completion_ids = iter(
        continuations(format.tokenizer, [prompts[i] for i in before], [ids_of_prompts[i] for i in before], texts)
    )
    groups = []
    for index, exchange in enumerate(exchanges):
        _require_tokens(ids_of_prompts[index], f"{rows.where(index)}: column `prompt`")
        trajectories = []
        for text, name in zip(exchange.completions, exchange.names, strict=True):
            ids = next(completion_ids)
            _require_tokens(ids, f"{rows.where(index)}: {name}")
            if ids[-1] != eos:
                ids = (*ids, eos)
            trajectories.append(single_turn(ids_of_prompts[index], ids, str(text)))
        prompt = Prompt(rows.row_id(index), ids_of_prompts[index], prompts[index], rows[index])
        groups.append(Group(prompt, tuple(trajectories)))
    return groups


def _rendered(rows: Rows, index: int, exchange: Exchange, chat: ChatFormat) -> Group:
    where = rows.where(index)
    given = given_by(rows[index], where)
    before = as_user(exchange.prompt) if isinstance(exchange.prompt, str) else exchange.prompt
    trajectories = []
    for completion, name in zip(exchange.completions, exchange.names, strict=True):
        messages = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion
        if messages[0]["role"] != "assistant":
            raise DataError(f"{where}: {name} must begin with an assistant message, not one of {messages[0]['role']!r}")
        check_text([*before, *messages], f"{where}: {name} or its prompt")
        rendered = demonstration(chat, [*before, *messages], len(before), where, given)
        written = [token_id for sample in rendered.samples for token_id in sample.token_ids]
        text = str(chat.tokenizer.decode(written, skip_special_tokens=True))
        said: Message = {"role": "assistant", "content": text}
        trajectories.append(Trajectory(rendered.samples, (said,)))
    prompt = Prompt(rows.row_id(index), rendered.prompt_ids, rendered.prompt_text, rows[index])
    return Group(prompt, tuple(trajectories))


def _require_tokens(ids: tuple[int, ...], what: str) -> None:
    if not ids:
        raise DataError(f"{what} is empty; write at least one token")
