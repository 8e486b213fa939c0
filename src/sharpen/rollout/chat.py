"""A chat with a policy, turn by turn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any

from sharpen.data.chat import ChatFormat, turn_end
from sharpen.data.chat.left_out import refuse_left_out
from sharpen.data.tokens import prompt_ids
from sharpen.errors import DataError
from sharpen.models.policy import Policy
from sharpen.rollout.engine import Engine, FinishedRequest, Request, Sampling
from sharpen.rollout.engines import make_engine
from sharpen.rollout.generation import run_block
from sharpen.rollout.settings import EngineSettings
from sharpen.types import Message


@dataclass(slots=True)
class Conversation:
    """Keeps the history. A policy without a chat template completes each text on its own and keeps none.

    Replies end where the context is full. The same ``seed`` and texts give the same replies. Of each turn only the
    tokens that are new are computed. ``date`` is what the chat template writes as today's, and ``given`` are
    the ``tools`` and ``documents`` that it gets. Without a chat template they are an error.
    """

    policy: Policy
    sampling: Sampling
    system: str | None = None
    seed: int = 0
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    messages: list[Message] = field(default_factory=list)
    engine_settings: EngineSettings = field(default_factory=EngineSettings)
    date: date | None = None
    given: Mapping[str, Any] = field(default_factory=dict)
    _engine: Engine = field(init=False)
    _format: ChatFormat | None = field(init=False, default=None)
    _conversation: int = field(init=False, default=0)
    _drawn: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self._engine = make_engine(self.engine_settings, self.policy)
        if self.remembers or self.system is not None or self.given:
            self._format = ChatFormat(
                self.policy.tokenizer,
                self.chat_template_kwargs,
                self.system,
                self.date,
                eos_ids=self.policy.eos_ids,
            )
            self.policy.end_at(turn_end(self._format).token_ids)

    @property
    def remembers(self) -> bool:
        return self.policy.tokenizer.chat_template is not None

    def reset(self) -> None:
        """Clear the history."""
        self.messages.clear()
        self._engine.release([self._conversation])
        self._conversation, self._drawn = self._conversation + 1, 0

    def close(self) -> None:
        """End the conversation for good and free its memory."""
        self._engine.close()

    def reply(self, text: str) -> FinishedRequest:
        """The policy's reply.

        Raises DataError if the conversation fills the context, or if the text has no tokens or is no text.
        """
        if not isinstance(text, str):
            raise DataError(
                f"reply() takes the text of one message, not {type(text).__name__} ({repr(text)[:60]}); give a list of "
                "messages to generate()"
            )
        history: list[Message] = [*self.messages, {"role": "user", "content": text}]
        if self._format is not None:
            rendered = self._format.prompt_text(history, "this conversation", self.given)
            refuse_left_out(
                self._format, self._format.with_system(history), "this conversation", self.given, text=rendered
            )
            ids = self._format.tokenize(rendered)
        else:
            [ids] = prompt_ids(self.policy.tokenizer, [text])
        room = self._engine.context_length - len(ids)
        if not ids or room < 1:
            raise DataError(
                "this text has no tokens"
                if not ids
                else f"the conversation has {len(ids)} tokens and there is room for only {self._engine.context_length}"
            )
        sampling = replace(self.sampling, max_new_tokens=min(self.sampling.max_new_tokens, room))
        request = Request(ids, self._conversation, sampling, self.seed, offset=self._drawn, keep=self.remembers)
        [[reply]] = run_block(self._engine, [[request]])
        self._drawn += len(reply.token_ids)
        if not self.remembers:
            self.reset()
        else:
            self.messages = [*history, {"role": "assistant", "content": reply.text}]
        return reply
