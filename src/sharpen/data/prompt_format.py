"""How rows become token ids, and which of them fit into the context."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from typing import Any, Generic, Literal, TypeVar

from transformers import PreTrainedTokenizerBase

from sharpen.data.chat import ChatFormat, TurnEnd, turn_end
from sharpen.data.known_tokens import check_embeddings, unknown_tokens
from sharpen.data.rows import Rows
from sharpen.data.settings import DataSettings
from sharpen.errors import DataError, RecipeError

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Loaded(Generic[Item]):
    """The items made from rows, in order, which rows were left out as too long, and what is doubtful about them."""

    items: tuple[Item, ...]
    left_out: tuple[int, ...] = ()
    warning: str | None = None

    @property
    def dropped(self) -> int:
        """How many rows were left out."""
        return len(self.left_out)

    def by_row(self) -> list[Item | None]:
        """The item of each row, None for those left out."""
        found: list[Item | None] = list(self.items)
        for index in self.left_out:
            found.insert(index, None)
        return found


@dataclass(frozen=True, slots=True)
class PromptFormat:
    """How prompts and completions are tokenised, and how long they may be.

    With ``chat``, a plain text prompt becomes a user message and a plain text completion an assistant message.
    Conversations are rendered by the tokenizer's chat template with ``chat_template_kwargs``; ``system`` is put before
    those that do not begin with a system message, and ``date`` is what templates write as today's. A row of more than
    ``context_length`` tokens is an error, or with ``overlong="drop"`` is left out and counted. ``eos_ids`` are the ends
    of sequence that the model declares; ``on_chat`` is told what ends an assistant's turn, where prompts are chats.
    ``embedding_rows`` is the number of token ids that the model can read, None if it is not known. ``on_plain`` is told
    if a model with a chat template gets plain text. ``alone``: each row counts by itself, and what all of them have in
    common is no matter.
    """

    tokenizer: PreTrainedTokenizerBase
    context_length: int
    chat: bool = False
    system: str | None = None
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    overlong: Literal["error", "drop"] = "error"
    date: date | None = None
    eos_ids: frozenset[int] = frozenset()
    on_chat: Callable[[TurnEnd], None] | None = None
    embedding_rows: int | None = None
    on_plain: Callable[[str], None] | None = None
    alone: bool = False

    @classmethod
    def of(
        cls,
        data: DataSettings,
        tokenizer: PreTrainedTokenizerBase,
        context_length: int,
        *,
        eos_ids: frozenset[int] = frozenset(),
        on_chat: Callable[[TurnEnd], None] | None = None,
        embedding_rows: int | None = None,
        on_plain: Callable[[str], None] | None = None,
    ) -> PromptFormat:
        return cls(
            tokenizer,
            context_length,
            data.chat,
            data.system,
            data.chat_template_kwargs,
            data.overlong,
            data.date,
            eos_ids,
            on_chat,
            embedding_rows,
            on_plain,
        )

    def chat_format(self, *, conversational: bool) -> ChatFormat | None:
        """The chat template; None if prompts stay plain text.

        Raises RecipeError for settings of chats where prompts are plain text, DataError for a tokenizer without a chat
        template.
        """
        if self.chat or conversational:
            chat = ChatFormat(self.tokenizer, self.chat_template_kwargs, self.system, self.date, eos_ids=self.eos_ids)
            if self.on_chat is not None:
                self.on_chat(turn_end(chat))
            return chat
        of_chats = {"system": self.system is not None, "chat_template_kwargs": bool(self.chat_template_kwargs)}
        if idle := [f"`data.{name}`" for name, given in of_chats.items() if given]:
            raise RecipeError(
                f"no effect of {' and '.join(idle)}: the prompts are plain text; set `data.chat: true` to make them "
                "chats"
            )
        if self.on_plain is not None and self.tokenizer.chat_template is not None:
            self.on_plain(
                "the model has a chat template, and these prompts are plain text: set `data.chat: true` if it is to "
                "answer as a chat model"
            )
        return None

    def fitting(
        self,
        rows: Rows,
        items: Sequence[Item],
        token_ids: Callable[[Item], Sequence[Sequence[int]]],
        tokens_needed: Callable[[Item], int],
        explain: Callable[[Item], str],
    ) -> Loaded[Item]:
        """The items that fit into the context, one item per row.

        ``token_ids`` are all sequences of an item. ``explain`` gives its token counts and the remedy, for the error
        message. Raises DataError for the first item that is too long, or with ``overlong="drop"`` if all are, and for
        what `check_embeddings` and `unknown_tokens` refuse; with ``alone`` neither if all are, nor for the latter.
        """
        sequences = [token_ids(item) for item in items]
        if self.embedding_rows is not None:
            check_embeddings(sequences, rows.where, self.tokenizer, self.embedding_rows)
        warning = None if self.alone else unknown_tokens(sequences, rows.where, self.tokenizer)
        too_long = [index for index, item in enumerate(items) if tokens_needed(item) > self.context_length]
        if not too_long:
            return Loaded(tuple(items), warning=warning)
        first = too_long[0]
        reason = f"{explain(items[first])}; or leave such rows out with `overlong: drop`"
        if self.overlong == "error":
            raise DataError(
                f"{rows.where(first)}: does not fit into the context of {self.context_length} tokens: {reason}"
            )
        if len(too_long) == len(items) and not self.alone:
            raise DataError(
                f"{rows.name}: none of the {len(items)} rows fits into {self.context_length} tokens: {reason}"
            )
        leave_out = set(too_long)
        kept = tuple(item for index, item in enumerate(items) if index not in leave_out)
        return Loaded(kept, tuple(too_long), warning)
