"""The data of a run, and how rows become prompts."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, PlainSerializer, model_validator

from sharpen.data.tasks import task_name
from sharpen.in_memory import IN_MEMORY, NamedPart, NamedRows
from sharpen.settings import Settings


def _saved_task(task: Any) -> Any:
    return task if task is None or isinstance(task, str) else task_name(task) or IN_MEMORY


NamedTask = Annotated[NamedPart, PlainSerializer(_saved_task)]
"""A task: in a recipe its name, with parameters."""


class DataSettings(Settings):
    """Either a task by name, with its prompts, held-out split and verifier, or your own data."""

    task: NamedTask = None
    """A task's name with parameters, as in `arithmetic?terms=4` (`sharpen tasks` lists them)."""
    train: NamedRows = None
    """A file, a folder or a hub data set to train on."""
    held_out: NamedRows = None
    """The same to measure on; a task brings its own."""
    chat: bool = False
    """Wrap a plain text prompt as a user's message."""
    system: str | None = None
    """A system message for conversations that begin with none."""
    chat_template_kwargs: dict[str, JsonValue] = Field({})
    """Passed to the chat template, as in `{enable_thinking: false}`."""
    overlong: Literal["error", "drop"] = "error"
    """Rows that do not fit into the model's context: error, or drop (their number is reported)."""
    step_separator: str | None = Field(None, min_length=1)
    """What ends a step in a completion whose steps are marked."""
    demonstrations: NamedRows = None
    """The completions on which a reward model's scores shall average 0; a task brings its own."""
    mixed: NamedRows = None
    """Rows of the second source."""

    @model_validator(mode="after")
    def _one_source(self) -> DataSettings:
        if self.task is not None and self.held_out is not None:
            raise ValueError("a task has its own held-out problems: leave out `held_out`, or give `train` instead")
        if (self.task is None) == (self.train is None):
            raise ValueError("give either `task` (a name) or `train` (a file or data set)")
        return self
