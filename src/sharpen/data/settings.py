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
    train: NamedRows = None
    held_out: NamedRows = None
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

    @model_validator(mode="after")
    def _one_source(self) -> DataSettings:
        if self.task is not None and self.held_out is not None:
            raise ValueError("a task has its own held-out problems: leave out `held_out`, or give `train` instead")
        if (self.task is None) == (self.train is None):
            raise ValueError("give either `task` (a name) or `train` (a file or data set)")
        return self
