"""A chat template with its arguments: messages → text and token ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from sharpen.data.chat.messages import normalised
from sharpen.errors import DataError
from sharpen.types import Message

NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """A tokenizer's chat template and its keyword arguments, such as ``enable_thinking=False``.

    ``system`` is put before conversations that do not begin with a system message. ``given``, of the methods, is what a
    row gives the template beside its messages: its ``tools`` and ``documents``. ``eos_ids`` are the ends of sequence
    that the model declares.
    """

    tokenizer: PreTrainedTokenizerBase
    template_kwargs: Mapping[str, Any]
    system: str | None = None
    eos_ids: frozenset[int] = frozenset()
    ends: dict[str, Any] = field(init=False, repr=False, compare=False, default_factory=dict)
    """What `sharpen.data.chat.turn_end` has learned of the template."""

    def __post_init__(self) -> None:
        if self.tokenizer.chat_template is None:
            raise DataError(
                f"the tokenizer of {self.tokenizer.name_or_path or 'this model'} has no chat template, which "
                "conversations need: use an instruction-tuned model, or plain text prompts with chat off"
            )

    def prompt_text(
        self, messages: Sequence[Message], where: str = "messages", given: Mapping[str, Any] = NOTHING
    ) -> str:
        """The conversation up to and including the generation prompt, after which the assistant writes."""
        return self.text(self.with_system(messages), where, given, add_generation_prompt=True)

    def prompt_ids(
        self, messages: Sequence[Message], where: str = "messages", given: Mapping[str, Any] = NOTHING
    ) -> tuple[int, ...]:
        """Token ids of ``prompt_text``; the only special tokens are those of the template."""
        return self.tokenize(self.prompt_text(messages, where, given))

    def with_system(self, messages: Sequence[Message]) -> Sequence[Message]:
        """The conversation, with the system message before it unless it begins with one."""
        if self.system is None or messages[0]["role"] == "system":
            return messages
        return [{"role": "system", "content": self.system}, *messages]

    def text(
        self, messages: Sequence[Message], where: str, given: Mapping[str, Any], *, add_generation_prompt: bool
    ) -> str:
        """What the template makes of these messages as they are."""
        return str(self.apply(messages, where, given, tokenize=False, add_generation_prompt=add_generation_prompt))

    def apply(self, messages: Sequence[Message], where: str, given: Mapping[str, Any], **options: Any) -> Any:
        """`apply_chat_template` of the tokenizer. Raises DataError, with ``where``, for what the template rejects."""
        conversation: Any = normalised(messages, where)
        try:
            return self.tokenizer.apply_chat_template(conversation, **options, **given, **self.template_kwargs)
        except TemplateError as error:
            raise DataError(f"{where}: the chat template rejects this conversation: {error}") from error

    def tokenize(self, text: str) -> tuple[int, ...]:
        encoded: Any = self.tokenizer(text, add_special_tokens=False, verbose=False)
        return tuple(encoded["input_ids"])
