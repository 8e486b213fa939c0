"""Settings of the optimizer, of the length of a run, of its checkpoints and of its logs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PlainSerializer, field_validator, model_validator

from sharpen.models.dtype import Dtype
from sharpen.runs.named_loggers import as_entries, saved_loggers
from sharpen.settings import Effect, Name, Seconds, Settings, not_blank

Decay = Annotated[float, Field(ge=0, lt=1)]


class OptimizerSettings(Settings):
    """AdamW, weight decay on matrices only."""

    learning_rate: float = Field(1e-6, gt=0)
    """The peak rate."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """AdamW's decay of its averages of the gradient and of its square, each at least 0 and below 1."""
    eps: float = Field(1e-8, gt=0, le=1)
    """AdamW's addition to the root of the squared gradient's average."""
    weight_decay: float = Field(0.0, ge=0, le=100)
    """AdamW's weight decay, times the learning rate."""
    warmup_steps: int = Field(0, ge=0)
    """Optimizer steps over which the rate rises linearly from 0."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """The rate after the warm-up: constant, or its decay to the last step."""
    min_ratio: float = Field(0.0, ge=0, le=1)
    """The decay ends at this fraction of `learning_rate`."""
    max_grad_norm: float | None = Field(1.0, gt=0)
    """Gradients of a larger norm are scaled down to this one; null: never."""

    effects = (Effect("min_ratio", "with schedule linear or cosine", lambda s: s.schedule != "constant"),)


class TrainingSettings(Settings):
    """The length of a run, and how its steps are cut."""

    steps: int = Field(100, ge=1)
    """Rollouts, or batches of data."""
    prompts_per_step: int = Field(8, ge=1, le=1_000_000)
    """Prompts per rollout; demonstrations, rankings or marked completions per batch."""
    tokens_per_microbatch: int | None = Field(None, ge=1)
    """Bounds memory; never changes the gradient. null: as many tokens as take about 0.75 GiB of activations on a CPU (2
    GiB in bfloat16) or a quarter of a GPU's memory, between 512 and 32,768, and at least twice the longest prompt."""
    shared_prompt: bool = True
    """Compute a prompt once for its whole group, on architectures where the tests prove that exact."""


class CheckpointSettings(Settings):
    """When checkpoints are written, and which are kept."""

    every: int = Field(0, ge=0)
    """Steps between checkpoints; 0: only at the end, or where the run is stopped."""
    every_minutes: float = Field(0.0, ge=0, le=1_000_000)
    """Also after a step that ends this many minutes or more after the last checkpoint; 0: never."""
    keep: int = Field(2, ge=1)
    """How many of the latest checkpoints are kept."""
    dtype: Dtype = "float32"
    """The type of the weights in a checkpoint's own files. With bfloat16 they are half as large, and `trainer/` holds
    the other half, from which a run resumes exactly."""
    best: Name | None = None
    """Also keep the best one by this held-out metric, such as `pass@1`; NaN is never the best."""
    grace_s: Seconds | None = 30.0
    """Seconds that the current step has to finish after SIGTERM or SIGHUP, for its checkpoint to be written; null: no
    limit."""


class LogSettings(Settings):
    """What is written beside metrics and checkpoints."""

    samples_every: int = Field(1, ge=0)
    """Steps between samples written to Parquet; 0: never, and no held-out answers either."""
    tokens_every: int = Field(0, ge=0)
    """Steps between samples that are written with what the training computed for each token: a multiple of
    `samples_every`, or 0: never. The first samples have it, too."""
    loggers: Annotated[tuple[Any, ...], PlainSerializer(saved_loggers)] = ()
    """Where the metrics go beside `metrics.jsonl`: names, or mappings of a `name` and settings, as in
    `[tensorboard, {name: wandb, project: sums}, metrics.py:CsvLogger]`."""

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

    @model_validator(mode="after")
    def _tokens_with_samples(self) -> LogSettings:
        if self.tokens_every and not self.samples_every:
            raise ValueError("tokens_every: tokens are written with samples, and samples_every is 0")
        if self.tokens_every and self.tokens_every % self.samples_every:
            raise ValueError(
                f"tokens_every: {self.tokens_every} is not a multiple of samples_every, {self.samples_every}, and "
                "tokens are written with samples"
            )
        return self

    @field_validator("loggers", mode="before")
    @classmethod
    def _one_or_several(cls, given: Any) -> Any:
        return as_entries(given)

    @field_validator("loggers")
    @classmethod
    def _have_names(cls, loggers: tuple[Any, ...]) -> tuple[Any, ...]:
        for entry in loggers:
            not_blank(entry)
            name = entry.get("name") if isinstance(entry, Mapping) else entry
            plain = name is None or isinstance(name, bool | int | float | list | tuple | Mapping)
            if plain or (isinstance(name, str) and not name.strip()):
                raise ValueError(f"a logger is a name or a mapping with a `name`, not {entry!r}")
        return loggers
