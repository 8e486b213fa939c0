"""Prompts and their given completions → groups."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from sharpen.data.chat import ChatFormat, RenderedDemonstration, demonstration, turn_end
from sharpen.data.chat.left_out import check_row
from sharpen.data.chat.messages import given_by, normalised
from sharpen.data.chat.written import text_of, thinking_of
from sharpen.data.columns import Text
from sharpen.data.prompt_format import Loaded, PromptFormat
from sharpen.data.prompts import as_user
from sharpen.data.rows import Rows
from sharpen.data.tokens import continuations, hidden_ids, prompt_ids, visible_texts
from sharpen.errors import DataError
from sharpen.types import Group, Message, Prompt, Sample, Trajectory, single_turn


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
    only what the assistant wrote in the completion is trained on, in one sample or several
    (`sharpen.data.chat.demonstration`).

    Raises DataError for an empty prompt or completion, for one that is no Unicode, for an assistant's message without
    text, calls or reasoning, and for a completion that does not begin with the assistant.
    """
    # The first row decides whether the rows are conversations: they are all alike.
    chat = format.chat_format(conversational=not isinstance(exchanges[0].prompt, str))
    if chat is None:
        return _from_texts(rows, exchanges, format)
    hidden = hidden_ids(chat.tokenizer, turn_end(chat).stops)
    return [_rendered(rows, index, exchange, chat, hidden) for index, exchange in enumerate(exchanges)]


def fitting_groups(
    rows: Rows, groups: Sequence[Group], format: PromptFormat, noun: str = "completion"
) -> Loaded[Group]:
    """The groups whose prompt and longest completion, called ``noun`` in errors, fit into the context."""

    def longest(group: Group) -> Sample:
        samples = [sample for trajectory in group.trajectories for sample in trajectory.samples]
        return max(samples, key=_length)

    def explain(group: Group) -> str:
        sample = longest(group)
        prefix, tokens = len(sample.prefix_ids), len(sample.token_ids)
        if sample.prefix_ids == group.prompt.token_ids:
            return f"its prompt has {prefix} tokens and its {noun} {tokens}. Shorten it"
        return f"before its last turn are {prefix} tokens and its {noun} has {tokens}. Shorten it"

    return format.fitting(rows, groups, _sequences, lambda group: _length(longest(group)), explain)


def _length(sample: Sample) -> int:
    return len(sample.prefix_ids) + len(sample.token_ids)


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
        for completion in exchange.completions:
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
            _require_tokens(ids if str(text).strip() else (), f"{rows.where(index)}: {name}")
            if ids[-1] != eos:
                ids = (*ids, eos)
            trajectories.append(single_turn(ids_of_prompts[index], ids, str(text)))
        prompt = Prompt(rows.row_id(index), ids_of_prompts[index], prompts[index], rows[index])
        groups.append(Group(prompt, tuple(trajectories)))
    return groups


def _rendered(rows: Rows, index: int, exchange: Exchange, chat: ChatFormat, hidden: Collection[int]) -> Group:
    where = rows.where(index)
    given = given_by(rows[index], where)
    before = as_user(exchange.prompt) if isinstance(exchange.prompt, str) else exchange.prompt
    trajectories = []
    for completion, name in zip(exchange.completions, exchange.names, strict=True):
        messages = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion
        if messages[0]["role"] != "assistant":
            raise DataError(f"{where}: {name} must begin with an assistant message, not one of {messages[0]['role']!r}")
        normalised([*before, *messages], where, chat.wants)
        _require_said(messages, len(before), where, name)
        whole = chat.with_system([*before, *messages])
        check_row(chat, whole, where, given, start=len(whole) - len(messages))
        rendered = demonstration(chat, [*before, *messages], len(before), where, given)
        trajectories.append(Trajectory(rendered.samples, _said(messages, rendered, chat, hidden)))
    prompt = Prompt(rows.row_id(index), rendered.prompt_ids, rendered.prompt_text, rows[index])
    return Group(prompt, tuple(trajectories))


def _said(
    messages: Sequence[Message], rendered: RenderedDemonstration, chat: ChatFormat, hidden: Collection[int]
) -> tuple[Message, ...]:
    """The messages as a rollout has them: what the assistant said is the text of its tokens."""
    texts = iter(visible_texts(chat.tokenizer, rendered.turns, hidden))
    return tuple(
        {"role": "assistant", "content": next(texts)} if message["role"] == "assistant" else message
        for message in messages
    )


def _require_said(messages: Sequence[Message], before: int, where: str, name: str) -> None:
    for number, message in enumerate(messages, start=before + 1):
        calls = message.get("tool_calls") or message.get("function_call")
        if message["role"] == "assistant" and not (text_of(message).strip() or thinking_of(message) or calls):
            what = name if len(messages) == 1 else f"message {number} (assistant)"
            raise DataError(f"{where}: {what} is empty; write at least one token")


def _require_tokens(ids: tuple[int, ...], what: str) -> None:
    if not ids:
        raise DataError(f"{what} is empty; write at least one token")
