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
    """A conversation split into prompt and completion; ``loss_mask`` marks the tokens that the assistant wrote."""

    prompt_text: str
    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    loss_mask: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """A tokenizer's chat template and its keyword arguments, such as ``enable_thinking=False``.

    ``system`` is put before conversations that do not begin with a system message.
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
        """The conversation up to and including the generation prompt, after which the assistant writes."""
        return self._text(self.with_system(messages), where, add_generation_prompt=True)

    def prompt_ids(self, messages: Sequence[Message], where: str = "messages") -> tuple[int, ...]:
        """Token ids of ``prompt_text``; the only special tokens are those of the template."""
        return self._tokenize(self.prompt_text(messages, where))

    def demonstration(self, messages: Sequence[Message], start: int, where: str) -> RenderedDemonstration:
        """Split a conversation before its assistant turn ``messages[start]``.

        The prompt is what a rollout would feed; the completion ends with the last token of an assistant turn. The loss
        mask covers the content of each assistant turn and the token that ends it, but not the line break after that,
        nor other turns. It comes from the template's ``{% generation %}`` block, or without one from the text that each
        turn adds to the rendered conversation.
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
        """The conversation, with the system message before it unless it begins with one."""
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
            raise DataError(f"{where}: the chat template rejects this conversation: {error}") from error

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
        """Where a turn that begins at ``start`` ends: after its last special token, if only whitespace follows."""
        special = set(self.tokenizer.all_special_ids) | {
            token_id for token_id, token in self.tokenizer.added_tokens_decoder.items() if token.special
        }
        end = next((i + 1 for i in reversed(range(start, len(ids))) if ids[i] in special), len(ids))
        return len(ids) if str(self.tokenizer.decode(list(ids[end:]))).strip() else end


def _require_prefix(prefix: tuple[int, ...], whole: tuple[int, ...], what: str) -> None:
    if whole[: len(prefix)] != prefix:
        raise DataError(
            f"{what} is rendered differently once the conversation continues, so its tokens cannot be identified. Some "
            "chat templates drop the thinking of earlier turns: split such a conversation into one row per assistant "
            "turn, or use a template that keeps it"
        )
