"""The data of a run, and how rows become prompts."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, PlainSerializer, field_validator, model_validator

from sharpen.data.tasks import task_name
from sharpen.in_memory import IN_MEMORY, NamedPart, NamedRows, saved
from sharpen.settings import Settings


def _saved_task(task: Any) -> Any:
    return task if task is None or isinstance(task, str) else task_name(task) or IN_MEMORY


NamedTask = Annotated[NamedPart, PlainSerializer(_saved_task)]
"""A task: in a recipe its name, with parameters."""


class SourceSettings(Settings):
    """A data source beside others: its rows, its share, and what is its own in scoring and answering."""

    share: float = Field(1.0, gt=0)
    """The source's share of the prompts, relative to those of the other sources."""
    task: NamedTask = None
    """A task's name with parameters; give either `task` or `train`."""
    train: NamedRows = None
    """A file, a folder or a hub data set to train on."""
    held_out: NamedRows = None
    """The same to measure on; a task brings its own."""
    reward: Annotated[Any, PlainSerializer(saved)] = None
    """What scores its completions. null: the task's verifier, else the top-level `reward`."""
    turns: NamedPart = None
    """What answers the model between its turns, for this source alone. null: as `rollout.turns` says, and one turn if
    another source has turns of its own."""
    max_turns: int = Field(8, ge=1)
    """The model's turns in a trajectory."""
    turn_timeout_s: float = Field(60.0, gt=0)
    """The time limit of a reply in seconds."""
    chat: bool | None = None
    """Wrap a plain text prompt as a user's message. null: as `data.chat` says."""
    system: str | None = None
    """A system message for conversations that begin with none. null: as `data.system` says."""
    chat_template_kwargs: dict[str, JsonValue] | None = None
    """Passed to the chat template. null: as `data.chat_template_kwargs` says."""

    @model_validator(mode="after")
    def _one_source(self) -> SourceSettings:
        _check_origin(self)
        return self

    def own(self) -> dict[str, Any]:
        """The settings that take the place of those of `DataSettings`."""
        rows = {"task": self.task, "train": self.train, "held_out": self.held_out}
        rendering = {name: getattr(self, name) for name in ("chat", "system", "chat_template_kwargs")}
        return {**rows, **{name: value for name, value in rendering.items() if value is not None}}

    @model_validator(mode="after")
    def _turns_have_effect(self) -> SourceSettings:
        fields = type(self).model_fields
        changed = [name for name in ("max_turns", "turn_timeout_s") if getattr(self, name) != fields[name].default]
        if changed and self.turns is None:
            raise ValueError(f"`{changed[0]}` has no effect without turns")
        return self


class DataSettings(Settings):
    """A task by name, with its prompts, held-out split and verifier; or your own data; or several of these."""

    task: NamedTask = None
    train: NamedRows = None
    held_out: NamedRows = None
    sources: dict[str, SourceSettings] = Field(default_factory=dict)
    """Several data sources by name, in the order in which ties between their shares are decided."""
    chat: bool = Field(False, description="wrap a plain text prompt as a user message")
    system: str | None = None
    chat_template_kwargs: dict[str, JsonValue] = Field(default_factory=dict)
    overlong: Literal["error", "drop"] = "error"
    step_separator: str | None = Field(None, min_length=1)
    """The text that ends a step of a completion, in rows with step labels."""
    demonstrations: NamedRows = None
    """Rows whose mean score is the zero of a reward model's scores."""
    mixed: NamedRows = None
    """Rows of a second source, for a method that has one."""

    @field_validator("sources")
    @classmethod
    def _names(cls, sources: dict[str, SourceSettings]) -> dict[str, SourceSettings]:
        for name in sources:
            # `held_out/reward/…` are parts of the reward over all sources.
            if not re.fullmatch(r"[A-Za-z0-9_-]+", name) or name == "reward":
                raise ValueError(f"a source's name has letters, digits, `_` and `-`, and is not `reward`: not {name!r}")
        return sources

    @model_validator(mode="after")
    def _one_source(self) -> DataSettings:
        if not self.sources:
            _check_origin(self)
        elif self.held_out is not None:
            raise ValueError("with `sources`, each source has its own `held_out`")
        elif self.task is not None or self.train is not None:
            raise ValueError("give either `sources`, or `task` or `train`, not both")
        return self

    def by_source(self) -> dict[str, DataSettings]:
        """The settings of each source, with the defaults that all of them share. The only source has no name."""
        if not self.sources:
            return {"": self}
        return {name: self.model_copy(update={"sources": {}, **source.own()}) for name, source in self.sources.items()}


def _check_origin(source: SourceSettings | DataSettings) -> None:
    if source.task is not None and source.held_out is not None:
        raise ValueError("a task has its own held-out problems: leave out `held_out`, or give `train` instead")
    if (source.task is None) == (source.train is None):
        raise ValueError("give either `task` (a name) or `train` (a file or data set)")
