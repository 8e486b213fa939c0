"""Conversations as token ids, through the tokenizer's own chat template."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from sharpen.errors import DataError

Message = Mapping[str, Any]

_GENERATION_BLOCK = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True, slots=True)
class RenderedDemonstration:
    """A conversation cut in two. ``loss_mask`` says which completion tokens the assistant wrote."""

    prompt_text: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    loss_mask: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """A tokenizer's chat template with the keyword arguments it is called with (``enable_thinking=False``,
    say).

    ``system`` is put before conversations that do not begin with a system message of their own.
    """

    tokenizer: PreTrainedTokenizerBase
    template_kwargs: Mapping[str, Any]
    system: str | None = None

    def __post_init__(self) -> None:
        if self.tokenizer.chat_template is None:
            raise DataError(
                f"the tokenizer of {self.tokenizer.name_or_path or 'this model'} has no chat template, which "
                "conversations need: use an instruction-tuned model, or plain text prompts with chat off"
            )

    def prompt_text(self, messages: Sequence[Message], where: str = "messages") -> str:
        """The conversation up to where the assistant begins to write (the generation prompt included)."""
        return self._text(self.with_system(messages), where, add_generation_prompt=True)

    def prompt_ids(self, messages: Sequence[Message], where: str = "messages") -> tuple[int, ...]:
        """Token ids of ``prompt_text``; special tokens are the template's, none are added."""
        return self._tokenize(self.prompt_text(messages, where))

    def demonstration(self, messages: Sequence[Message], start: int, where: str) -> RenderedDemonstration:
        """Cut a conversation before its assistant turn ``messages[start]``.

        The prompt is what a rollout would feed, and the completion goes on to the last token by the
        assistant. A token is trained on when the assistant wrote it: the content of its turns and the token
        that ends each, but not the line break after that, nor the turns of others. The template's ``{%
        generation %}`` block decides where there is one, else what each turn adds to the rendered
        conversation.
        """
        shift = len(self.with_system(messages)) - len(messages)
        messages, start = self.with_system(messages), start + shift
        prompt_text = self._text(messages[:start], where, add_generation_prompt=True)
        prompt_ids = self._tokenize(prompt_text)
        if _GENERATION_BLOCK.search(self.tokenizer.get_chat_template()):
            ids, mask = self._template_mask(messages, where)
        else:
            ids, mask = self._prefix_mask(messages, start, where)
        _require_prefix(prompt_ids, ids, f"{where}: the prompt before message {start + 1 - shift}")

        trained = mask[len(prompt_ids) :]
        if not any(trained):
            raise DataError(f"{where}: the chat template renders no token for the assistant's turns")
        end = max(i for i, is_trained in enumerate(trained) if is_trained) + 1
        return RenderedDemonstration(prompt_text, prompt_ids, ids[len(prompt_ids) :][:end], tuple(trained[:end]))

    def with_system(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The conversation, with the system message before it if it has none of its own."""
        if self.system is None or messages[0]["role"] == "system":
            return messages
        return [{"role": "system", "content": self.system}, *messages]

    def _text(self, messages: Sequence[Message], where: str, *, add_generation_prompt: bool) -> str:
        return str(self._apply(messages, where, tokenize=False, add_generation_prompt=add_generation_prompt))

    def _apply(self, messages: Sequence[Message], where: str, **options: Any) -> Any:
        conversation: Any = list(messages)
        try:
            return self.tokenizer.apply_chat_template(conversation, **options, **self.template_kwargs)
        except TemplateError as error:
            raise DataError(f"{where}: the chat template refuses this conversation: {error}") from error

    def _tokenize(self, text: str) -> tuple[int, ...]:
        encoded: Any = self.tokenizer(text, add_special_tokens=False, verbose=False)
        return tuple(encoded["input_ids"])

    def _template_mask(self, messages: Sequence[Message], where: str) -> tuple[tuple[int, ...], list[bool]]:
        rendered = self._apply(messages, where, return_dict=True, return_assistant_tokens_mask=True)
        return tuple(rendered["input_ids"]), [written == 1 for written in rendered["assistant_masks"]]

    def _prefix_mask(self, messages: Sequence[Message], start: int, where: str) -> tuple[tuple[int, ...], list[bool]]:
        ids = self._tokenize(self._text(messages, where, add_generation_prompt=False))
        mask = [False] * len(ids)
        for turn in range(start, len(messages)):
            if messages[turn]["role"] != "assistant":
                continue
            before = self._tokenize(self._text(messages[:turn], where, add_generation_prompt=True))
            after = self._tokenize(self._text(messages[: turn + 1], where, add_generation_prompt=False))
            for prefix in (before, after):
                _require_prefix(prefix, ids, f"{where}: the conversation around its assistant turn {turn + 1}")
            end = self._end_of_turn(after, len(before))
            mask[len(before) : end] = [True] * (end - len(before))
        return ids, mask

    def _end_of_turn(self, ids: tuple[int, ...], start: int) -> int:
        """Where a turn that begins at ``start`` ends: after its last special token if blanks follow."""
        special = set(self.tokenizer.all_special_ids) | {
            token_id for token_id, token in self.tokenizer.added_tokens_decoder.items() if token.special
        }
        end = next((i + 1 for i in reversed(range(start, len(ids))) if ids[i] in special), len(ids))
        return len(ids) if str(self.tokenizer.decode(list(ids[end:]))).strip() else end


def _require_prefix(prefix: tuple[int, ...], whole: tuple[int, ...], what: str) -> None:
    if whole[: len(prefix)] != prefix:
        raise DataError(
            f"{what} is rendered differently when the conversation goes on, so its tokens cannot be told "
            "apart. Some chat templates drop the thinking of earlier turns: split such a conversation into a "
            "row per assistant turn, or train with a template that keeps it"
        )
