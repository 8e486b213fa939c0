"""Prompts with the completions that somebody wrote for them → groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from sharpen.data.chat import ChatFormat
from sharpen.data.loading import Loaded, Overlong, Text, keep_fitting, tokenize
from sharpen.data.prompts import as_user, require_chat
from sharpen.data.rows import Rows
from sharpen.errors import DataError
from sharpen.types import Completion, Finish, Group, Prompt


@dataclass(frozen=True, slots=True)
class Exchange:
    """A row's prompt and its completions, all texts or all messages, and what errors call each completion."""

    prompt: Text
    completions: tuple[Text, ...]
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Reader:
    """How exchanges become token ids.

    Texts are tokenised apart, so that the prompt's tokens are what a rollout would feed, and a completion ends with
    the tokenizer's end-of-sequence token; with ``chat`` they become a user's and an assistant's message. Messages
    go through the chat template, and only what the assistant wrote in the completion is trained on.
    """

    tokenizer: PreTrainedTokenizerBase
    context_length: int
    chat: bool = False
    system: str | None = None
    chat_template_kwargs: Mapping[str, Any] | None = None
    overlong: Overlong = "error"

    def groups(self, rows: Rows, exchanges: Sequence[Exchange]) -> list[Group]:
        """One group for each row, with its completions in their order.

        Raises DataError for an empty prompt or completion, and for a completion that does not begin with the
        assistant.
        """
        # Whether rows are conversations is judged by the first of them, and they are alike.
        conversational = not isinstance(exchanges[0].prompt, str)
        require_chat(self.system, chat=self.chat or conversational)
        if not self.chat and not conversational:
            return self._from_texts(rows, exchanges)
        format_ = ChatFormat(self.tokenizer, self.chat_template_kwargs or {}, self.system)
        return [_rendered(rows, index, exchange, format_) for index, exchange in enumerate(exchanges)]

    def fitting(self, rows: Rows, groups: Sequence[Group], noun: str = "completion") -> Loaded[Group]:
        """The groups whose prompt and longest completion fit into the context; see `keep_fitting`."""
        longest: Callable[[Group], int] = lambda group: max(len(c.token_ids) for c in group.completions)  # noqa: E731
        return keep_fitting(
            rows,
            groups,
            lambda group: len(group.prompt.token_ids) + longest(group),
            context_length=self.context_length,
            overlong=self.overlong,
            explain=lambda group: (
                f"its prompt has {len(group.prompt.token_ids)} tokens and its {noun} {longest(group)}. Shorten it"
            ),
        )

    def _from_texts(self, rows: Rows, exchanges: Sequence[Exchange]) -> list[Group]:
        eos = self.tokenizer.eos_token_id
        if eos is None:
            raise DataError(
                f"the tokenizer of {self.tokenizer.name_or_path or 'this model'} has no end-of-sequence token, which "
                "completions must end with: set its eos_token"
            )
        prompts = [str(exchange.prompt) for exchange in exchanges]
        texts = [str(completion) for exchange in exchanges for completion in exchange.completions]
        prompt_ids = tokenize(self.tokenizer, prompts, add_special_tokens=True)
        completion_ids = iter(tokenize(self.tokenizer, texts, add_special_tokens=False))
        groups = []
        for index, exchange in enumerate(exchanges):
            _require_tokens(prompt_ids[index], f"{rows.where(index)}: column `prompt`")
            completions = []
            for text, name in zip(exchange.completions, exchange.names, strict=True):
                ids = next(completion_ids)
                _require_tokens(ids, f"{rows.where(index)}: {name}")
                if ids[-1] != eos:
                    ids = (*ids, eos)
                completions.append(_completion(ids, str(text), (True,) * len(ids)))
            prompt = Prompt(rows.row_id(index), prompt_ids[index], prompts[index], rows[index])
            groups.append(Group(prompt, tuple(completions)))
        return groups


def _rendered(rows: Rows, index: int, exchange: Exchange, format_: ChatFormat) -> Group:
    where = rows.where(index)
    before = as_user(exchange.prompt) if isinstance(exchange.prompt, str) else exchange.prompt
    completions = []
    for completion, name in zip(exchange.completions, exchange.names, strict=True):
        messages = [{"role": "assistant", "content": completion}] if isinstance(completion, str) else completion
        if messages[0]["role"] != "assistant":
            raise DataError(
                f"{where}: {name} must begin with a message of the assistant, not of {messages[0]['role']!r}"
            )
        rendered = format_.demonstration([*before, *messages], len(before), where)
        text = str(format_.tokenizer.decode(list(rendered.completion_ids), skip_special_tokens=True))
        completions.append(_completion(rendered.completion_ids, text, rendered.loss_mask))
    prompt = Prompt(rows.row_id(index), rendered.prompt_ids, rendered.prompt_text, rows[index])
    return Group(prompt, tuple(completions))


def _require_tokens(ids: tuple[int, ...], what: str) -> None:
    if not ids:
        raise DataError(f"{what} is empty; write at least one token")


def _completion(ids: tuple[int, ...], text: str, loss_mask: tuple[bool, ...]) -> Completion:
    return Completion(ids, text, loss_mask, Finish.EOS)
