"""Settings of the optimizer, of the length of a run, of its checkpoints and of its logs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

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


class LogSettings(Settings):
    samples_every: int = Field(1, ge=0, description="steps between samples written to Parquet; 0: never")
    tensorboard: bool = False
    wandb: str | None = Field(None, description="name of the Weights & Biases project")
    trackio: str | None = Field(None, description="name of the trackio project")
