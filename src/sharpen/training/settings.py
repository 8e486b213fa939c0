"""Settings of the optimizer, of the length of a run, of its checkpoints and of its logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from sharpen.settings import Name, Settings


class OptimizerSettings(Settings):
    learning_rate: float = Field(1e-6, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    warmup_steps: int = Field(0, ge=0)
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    min_ratio: float = Field(0.0, ge=0, le=1, description="share of learning_rate at which the decay ends")
    max_grad_norm: float | None = Field(1.0, gt=0)


class TrainingSettings(Settings):
    steps: int = Field(100, ge=1, description="rollouts, or batches of demonstrations")
    prompts_per_step: int = Field(8, ge=1)
    tokens_per_microbatch: int | None = Field(None, ge=1, description="bounds memory; null: chosen by model and device")
    """Never changes the gradient."""
    shared_prompt: bool = Field(True, description="compute a prompt once for its group, for models where this is exact")


class CheckpointSettings(Settings):
    every: int = Field(0, ge=0, description="steps between checkpoints; 0: only at the end")
    every_minutes: float = Field(0.0, ge=0, description="also when the last one is this many minutes old; 0: never")
    keep: int = Field(2, ge=1, description="latest checkpoints to keep")
    best: Name | None = Field(None, description="also keep the best checkpoint by this held-out measure, e.g. pass@1")
    grace_s: float | None = Field(30.0, gt=0, description="null: no limit")
    """Seconds after SIGTERM or SIGHUP within which the current step must end for its checkpoint to be written. Then the
    process ends."""


LoggerEntry = Name | dict[str, Any]


class LogSettings(Settings):
    samples_every: int = Field(1, ge=0, description="steps between samples written to Parquet; 0: never")
    loggers: tuple[LoggerEntry, ...] = Field((), description="where metrics go beside metrics.jsonl")
    """Each is a name, or a mapping of a name and settings: tensorboard, wandb and trackio (with a project), or one of
    your own as module:Name or path/to/file.py:Name."""

    @model_validator(mode="before")
    @classmethod
    def _refuse_old_names(cls, given: Any) -> Any:
        """Of earlier versions. A saved recipe that did not use them has them with their defaults, and is still read."""
        if not isinstance(given, Mapping):
            return given
        old = ("tensorboard", "wandb", "trackio")
        for name in old:
            if given.get(name):
                entry = name if name == "tensorboard" else f"{{name: {name}, project: {given[name]}}}"
                raise ValueError(f"`{name}` is now one of the loggers: write `loggers: [{entry}]`")
        return {key: value for key, value in given.items() if key not in old or value not in (False, None)}

    @field_validator("loggers", mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str | Mapping) else given

    @field_validator("loggers")
    @classmethod
    def _have_names(cls, loggers: tuple[LoggerEntry, ...]) -> tuple[LoggerEntry, ...]:
        for entry in loggers:
            name = entry if isinstance(entry, str) else entry.get("name")
            if not isinstance(name, str) or not name.strip():
                raise ValueError(f"a logger is a name or a mapping with a `name`, not {entry!r}")
        return loggers
