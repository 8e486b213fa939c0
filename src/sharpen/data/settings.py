"""The data of a run, and how rows become prompts."""

from __future__ import annotations

import datetime
import re
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, PlainSerializer, field_validator, model_validator

from sharpen.data.tasks import task_name
from sharpen.in_memory import IN_MEMORY, OF_REWARDS, NamedPart, NamedRows, saved
from sharpen.settings import Effect, Name, Seconds, Settings


def _saved_task(task: Any) -> Any:
    return task if task is None or isinstance(task, str) else task_name(task) or IN_MEMORY


NamedTask = Annotated[NamedPart, PlainSerializer(_saved_task)]
"""A task: in a recipe its name, with parameters."""


_OF_ROWS = (
    Effect("held_out", "with `train`, as a task has its own held-out problems", lambda s: s.task is None),
    Effect("columns", "with `train`, as a task names its own columns", lambda s: s.task is None),
)


class SourceSettings(Settings):
    """A data source beside others: its rows, its share, and what is its own in scoring and answering."""

    share: float = Field(1.0, ge=1e-6, le=1e6)
    """The source's share of the prompts, relative to those of the other sources."""
    task: NamedTask = None
    """A task's name with parameters; give either `task` or `train`."""
    train: NamedRows = None
    """A file, a folder or a hub data set to train on."""
    held_out: NamedRows = None
    """The same to measure on; a task brings its own."""
    columns: dict[Name, Name] | None = None
    """As `data.columns`, for this source alone. null: as `data.columns` says."""
    reward: Annotated[Any, PlainSerializer(saved), OF_REWARDS] = None
    """What scores its completions. null: the task's verifier, else the top-level `reward`."""
    turns: NamedPart = None
    """What answers the model between its turns, for this source alone. null: as `rollout.turns` says, and one turn if
    another source has turns of its own."""
    max_turns: int = Field(8, ge=1)
    """The model's turns in a trajectory."""
    turn_timeout_s: Seconds = 60.0
    """The time limit of a reply in seconds."""
    chat: bool | None = None
    """Wrap a plain text prompt as a user's message. null: as `data.chat` says."""
    system: str | None = None
    """A system message for conversations that begin with none. null: as `data.system` says."""
    chat_template_kwargs: dict[str, JsonValue] | None = None
    """Passed to the chat template. null: as `data.chat_template_kwargs` says."""

    effects = (
        *_OF_ROWS,
        *(Effect(name, "with turns", lambda s: s.turns is not None) for name in ("max_turns", "turn_timeout_s")),
    )

    @model_validator(mode="after")
    def _one_source(self) -> SourceSettings:
        _check_origin(self)
        return self

    def own(self) -> dict[str, Any]:
        """The settings that take the place of those of `DataSettings`."""
        rows = {"task": self.task, "train": self.train, "held_out": self.held_out}
        shared = {name: getattr(self, name) for name in ("columns", "chat", "system", "chat_template_kwargs")}
        return {**rows, **{name: value for name, value in shared.items() if value is not None}}


class DataSettings(Settings):
    """A task by name, with its prompts, held-out split and verifier; or your own data; or several of these."""

    task: NamedTask = None
    """A task's name with parameters, as in `arithmetic?terms=4` (`sharpen tasks` lists them)."""
    train: NamedRows = None
    """A file, a folder or a hub data set to train on."""
    held_out: NamedRows = None
    """The same to measure on; a task brings its own."""
    columns: dict[Name, Name] = Field({})
    """Names of columns that sharpen or a reward reads, each with the name that the column has in `train` and
    `held_out`: `{prompt: question, answer: solution}`."""
    sources: dict[str, SourceSettings] = Field({})
    """Several data sources by name, each with its share, reward and turns, in the order in which ties between their
    shares are decided."""
    chat: bool = False
    """Wrap a plain text prompt as a user's message."""
    system: str | None = None
    """A system message for conversations that begin with none."""
    chat_template_kwargs: dict[str, JsonValue] = Field({})
    """Passed to the chat template, as in `{enable_thinking: false}`."""
    chat_template: Name | None = None
    """A chat template in place of the tokenizer's own: a file, its text, or the name of one that the tokenizer has."""
    date: datetime.date | None = None
    """What a chat template writes as today's date. null: the day on which the run starts, which is recorded."""
    overlong: Literal["error", "drop"] = "error"
    """Rows that do not fit into the model's context: error, or drop (their number is reported)."""
    step_separator: str | None = Field(None, min_length=1)
    """What ends a step in a completion whose steps are marked."""
    demonstrations: NamedRows = None
    """The completions on which a reward model's scores average 0 after training; a task brings its own."""
    mixed: NamedRows = None
    """Rows of the second source."""

    effects = _OF_ROWS

    @field_validator("date", mode="before")
    @classmethod
    def _as_written(cls, value: Any) -> Any:
        if value is None or type(value) is datetime.date:
            return value
        try:
            return datetime.date.fromisoformat(value)
        except (TypeError, ValueError):
            raise ValueError("write a date as in 2024-07-26") from None

    @field_validator("sources")
    @classmethod
    def _names(cls, sources: dict[str, SourceSettings]) -> dict[str, SourceSettings]:
        for name in sources:
            # `held_out/reward/…` are parts of the reward over all sources.
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or name == "reward":
                raise ValueError(
                    f"the name of a source has letters, digits, `_` and `-`, and is not `reward`; not {name!r}"
                )
        return sources

    @model_validator(mode="after")
    def _one_source(self) -> DataSettings:
        if not self.sources:
            _check_origin(self)
        elif self.held_out is not None:
            raise ValueError("with `sources`, each source has its own `held_out`")
        elif self.task is not None or self.train is not None:
            raise ValueError("with `sources`, each source has its own `task` or `train`")
        return self

    @property
    def held_out_setting(self) -> str:
        """Where held-out rows are given, as messages name it."""
        return "data.sources.NAME.held_out" if self.sources else "data.held_out"

    def by_source(self) -> dict[str, DataSettings]:
        """The settings of each source, with the defaults that all of them share. The only source has no name."""
        if not self.sources:
            return {"": self}
        return {name: self.model_copy(update={"sources": {}, **source.own()}) for name, source in self.sources.items()}


def _check_origin(source: SourceSettings | DataSettings) -> None:
    if (source.task is None) == (source.train is None):
        both = ", not both" if source.task is not None else ""
        raise ValueError(f"give either `task` (a name) or `train` (a file or data set){both}")
