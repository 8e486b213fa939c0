"""A chat template with its arguments: messages → text and token ids."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any

from jinja2 import TemplateSyntaxError
from transformers import PreTrainedTokenizerBase

from sharpen.data.chat.dates import date_written, settle_date
from sharpen.data.chat.generation_prompt import complete_template
from sharpen.data.chat.messages import Wants, normalised
from sharpen.data.chat.probes import complaint, complaint_about, wants_of
from sharpen.data.chat.template import variables_of
from sharpen.errors import DataError, RecipeError
from sharpen.suggest import did_you_mean
from sharpen.types import Message

NOTHING: Mapping[str, Any] = {}


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """A tokenizer's chat template and its keyword arguments, such as ``enable_thinking=False``.

    ``system`` is put before conversations that do not begin with a system message. ``given``, of the methods, is what a
    row gives the template beside its messages: its ``tools`` and ``documents``. Errors call the template ``called``.
    ``date`` is what a template writes as today's; None is that of `date_written`, or today's.
    ``eos_ids`` are the ends of sequence that the model declares. The tokenizer's template gets the generation prompt
    that it lacks (`complete_template`).
    """

    tokenizer: PreTrainedTokenizerBase
    template_kwargs: Mapping[str, Any]
    system: str | None = None
    date: date | None = None
    called: str = "the chat template"
    eos_ids: frozenset[int] = frozenset()
    wants: Wants = field(init=False, repr=False, compare=False)
    written: set[str] = field(init=False, repr=False, compare=False, default_factory=set)
    """The kinds of content that the template has been seen to write (`sharpen.data.chat.left_out`)."""
    ends: dict[str, Any] = field(init=False, repr=False, compare=False, default_factory=dict)
    """What `sharpen.data.chat.turn_end` has learned of the template."""

    def __post_init__(self) -> None:
        template = self.tokenizer.chat_template
        name = self.tokenizer.name_or_path or "this model"
        if template is None:
            raise DataError(
                f"the tokenizer of {name} has no chat template, which conversations need: use an instruction-tuned "
                "model, or plain text prompts with chat off"
            )
        if isinstance(template, dict) and "default" not in template:
            raise DataError(
                f"the tokenizer of {name} has several chat templates and none is its default: name one of "
                f"{', '.join(template)} as `data.chat_template`"
            )
        self._refuse_idle_arguments()
        complete_template(self.tokenizer)
        object.__setattr__(self, "wants", wants_of(self.render))

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
        """`apply_chat_template` of the tokenizer.

        Raises DataError, with ``where``, for messages that are malformed and for what the template rejects.
        """
        first = self.number(messages, 0)
        conversation = normalised(messages, where, self.wants, first=first)
        try:
            return self.render(conversation, given, **options)
        # A template is a program from the model's folder, and raises whatever it likes.
        except Exception as error:
            raise DataError(f"{where}: {self._rejection(conversation, given, error, first)}") from error

    def render(self, conversation: Sequence[Message], given: Mapping[str, Any], **options: Any) -> Any:
        """`apply_chat_template` of the tokenizer for `normalised` messages. Raises what the template raises."""
        arguments = {**self.template_kwargs, **given}
        settle_date(self.template(arguments))
        with date_written(self.date):
            return self.tokenizer.apply_chat_template([*map(dict, conversation)], **options, **arguments)

    def template(self, given: Mapping[str, Any] = NOTHING) -> str:
        """The text of the template: of several, transformers takes ``tool_use`` where there are tools."""
        return str(self.tokenizer.get_chat_template(tools=given.get("tools")))

    def number(self, messages: Sequence[Message], index: int) -> int:
        """The number of a message in its row, from 1; 0 is the system message that `with_system` puts before them."""
        put_before = self.system is not None and list(messages[:1]) == [{"role": "system", "content": self.system}]
        return index if put_before else index + 1

    def tokenize(self, text: str) -> tuple[int, ...]:
        encoded: Any = self.tokenizer(text, add_special_tokens=False, verbose=False)
        return tuple(encoded["input_ids"])

    def _refuse_idle_arguments(self) -> None:
        """Raises RecipeError for an argument that the template does not read, as where its name is mistyped."""
        of_transformers = inspect.signature(self.tokenizer.apply_chat_template).parameters.keys() - {
            "tools",
            "documents",
        }
        given = [name for name in self.template_kwargs if name not in of_transformers]
        if not given:
            return
        own = self.tokenizer.chat_template
        templates = list(own.values()) if isinstance(own, dict) else [own]
        try:
            reads = frozenset[str]().union(*map(variables_of, templates))
        except TemplateSyntaxError:
            # Rendering says so with the row.
            return
        if idle := [name for name in given if name not in reads]:
            hint = did_you_mean(idle[0], sorted(reads))
            raise RecipeError(
                f"no effect of the chat template argument{'s' * (len(idle) > 1)} {', '.join(f'`{x}`' for x in idle)}: "
                f"{self.called} does not read {'them' if len(idle) > 1 else 'it'}.{hint}"
            )

    def _rejection(
        self, conversation: Sequence[Message], given: Mapping[str, Any], error: Exception, first: int
    ) -> str:
        """The template's complaint, and the message without which it has none."""
        reason = complaint(error)
        as_user = [{"role": "user", "content": "Hi"}]
        if complaint_about(self.render, as_user, {}) == reason:
            what = "every conversation"
        elif given and complaint_about(self.render, conversation, {}) != reason:
            what = f"this conversation with its {' and '.join(f'`{name}`' for name in given)}"
        else:
            length = len(conversation)
            while length > 1 and complaint_about(self.render, conversation[: length - 1], given) == reason:
                length -= 1
            what = f"this conversation at {message_name(conversation[length - 1], first + length - 1)}"
        return f"{self.called} rejects {what}: {reason}"


def message_name(message: Message, number: int) -> str:
    """What errors call a message, by its `ChatFormat.number`."""
    return f"message {number} ({message['role']})" if number else "the system message that the settings give"
