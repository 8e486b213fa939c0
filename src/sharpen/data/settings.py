"""The data of a run, and how rows become prompts."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, JsonValue, model_validator

from sharpen.settings import Settings


class DataSettings(Settings):
    """Either a task by name, with its prompts, held-out split and verifier, or your own data."""

    task: str | None = None
    train: str | None = None
    held_out: str | None = None
    chat: bool = Field(False, description="wrap a plain text prompt as a user message")
    system: str | None = None
    chat_template_kwargs: dict[str, JsonValue] = Field(default_factory=dict)
    overlong: Literal["error", "drop"] = "error"
    step_separator: str | None = Field(None, min_length=1)
    """The text that ends a step of a completion, in rows with step labels."""
    demonstrations: str | None = None
    """Rows whose mean score is the zero of a reward model's scores."""
    mixed: str | None = None
    """Rows of a second source, for a method that has one."""

    @model_validator(mode="after")
    def _one_source(self) -> DataSettings:
        if self.task is not None and self.held_out is not None:
            raise ValueError("a task has its own held-out problems: leave out `held_out`, or give `train` instead")
        if (self.task is None) == (self.train is None):
            raise ValueError("give either `task` (a name) or `train` (a file or data set)")
        return self
