"""The generation prompt of chat templates that ignore ``add_generation_prompt``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from transformers import PreTrainedTokenizerBase

from sharpen.data.chat.messages import normalised
from sharpen.data.chat.probes import PROBE, alike, rendering, wants_of
from sharpen.types import Message

_ASKED, _SAID, _THOUGHT = f"{PROBE}asked", f"{PROBE}said", f"{PROBE}thought"
_OPENED = re.compile(r"<\w+>\s*$")
"""A tag that is open at the end of a text, such as ``<think>``."""


def complete_template(tokenizer: PreTrainedTokenizerBase) -> None:
    """Give a tokenizer's chat templates a generation prompt where they ignore ``add_generation_prompt``, as plain
    ChatML without its last line does, and yet begin assistants' turns with a header, such as
    ``<|im_start|>assistant\\n``.

    The header becomes the generation prompt, here and wherever the tokenizer is saved. Without it the model would be
    trained to write the header, and its answers would show it. All other templates stay as they are.
    """
    own: Any = tokenizer.chat_template
    if isinstance(own, dict):
        tokenizer.chat_template = {name: _completed(tokenizer, template) for name, template in own.items()}
    elif own is not None:
        tokenizer.chat_template = _completed(tokenizer, own)


def _completed(tokenizer: PreTrainedTokenizerBase, template: str) -> str:
    probed = _Probed(tokenizer, template)
    asked: list[Message] = [{"role": "user", "content": _ASKED}]
    if probed.text(asked) is None:
        # Some templates insist on a system message.
        asked = [{"role": "system", "content": _ASKED}, *asked]
    plain = probed.text(asked)
    if plain is None or plain != probed.text(asked, add_generation_prompt=True):
        return template
    header = _header(probed, asked)
    if not header:
        return template
    # Jinja drops one line break at the end of a template.
    text = re.sub(r"\r?\n\Z", "", template)
    completed = f"{text}{{% if add_generation_prompt %}}{{{{ {header!r} }}}}{{% endif %}}"
    found = _Probed(tokenizer, completed)
    as_meant = found.text(asked, add_generation_prompt=True) == plain + header and found.text(asked) == plain
    return completed if as_meant else template


def _header(probed: _Probed, asked: Sequence[Message]) -> str:
    """What all turns of the assistant begin with, whether or not they hold thinking; empty if that is only blank."""
    header = probed.before_said(asked)
    answered = [*asked, {"role": "assistant", "content": _SAID}, {"role": "user", "content": _ASKED}]
    if probed.before_said(answered) != header:
        return ""
    thoughtful = (
        probed.before_said(asked, reasoning_content=_THOUGHT),
        probed.before_said(asked, content=f"<think>\n{_THOUGHT}\n</think>\n\n{_SAID}"),
    )
    shared = header[: min(alike(header, begins or header) for begins in thoughtful)]
    if shared != header:
        # The tag that opens thinking is the assistant's.
        shared = _OPENED.sub("", shared)
    # So is a blank before the answer, which tokenizers join to its first word.
    shared = shared.rstrip(" ")
    return shared if shared.strip() else ""


class _Probed:
    """A template of a tokenizer, as messages in its own form show it."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str) -> None:
        self._tokenizer, self._template = tokenizer, template
        self._wants = wants_of(self._render)

    def text(self, messages: Sequence[Message], *, add_generation_prompt: bool = False) -> str | None:
        """None if the template rejects the messages."""
        given = normalised(messages, "a probe", self._wants)
        return rendering(self._render, given, {}, add_generation_prompt=add_generation_prompt)

    def before_said(self, messages: Sequence[Message], **more: str) -> str:
        """What stands between the messages and the answer to them; empty where the answer is not to be found."""
        before = self.text(messages)
        whole = self.text([*messages, {"role": "assistant", "content": _SAID, **more}])
        if before is None or whole is None or not whole.startswith(before):
            return ""
        header, said, _ = whole[len(before) :].partition(_SAID)
        return header if said else ""

    def _render(self, messages: Sequence[Message], given: Any, **options: Any) -> Any:
        conversation = [*map(dict, messages)]
        return self._tokenizer.apply_chat_template(conversation, chat_template=self._template, **options, **given)
