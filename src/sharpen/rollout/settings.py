"""How completions are sampled for training."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sharpen.settings import Settings


class EngineSettings(Settings):
    name: Literal["local"] = "local"
    max_sequences: int = Field(512, ge=1, description="requests that are decoded at once")
    kv_gib: float | None = Field(None, gt=0)
    """Memory for keys and values, in GiB; null: derived from the model and the kind of device."""


class RolloutSettings(Settings):
    max_new_tokens: int = Field(256, ge=1)
    temperature: float = Field(1.0, gt=0)
    stop: tuple[str, ...] = ()
    engine: EngineSettings = EngineSettings()
    max_reward_failures: float = Field(0.1, ge=0, le=1)
    """The share of a step's samples whose reward may raise or time out before the run stops."""

    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0

    @model_validator(mode="after")
    def _untruncated(self) -> RolloutSettings:
        if (self.top_p, self.top_k, self.min_p) != (1.0, 0, 0.0):
            raise ValueError(
                "training needs top_p=1, top_k=0, min_p=0: a policy gradient is undefined on a truncated "
                "distribution. To truncate in evaluation, set `evaluation.top_p`, `evaluation.top_k` or "
                "`evaluation.min_p`"
            )
        return self
