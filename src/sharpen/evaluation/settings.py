"""How a model is evaluated on held-out prompts."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from sharpen.settings import Settings


class EvaluationSettings(Settings):
    every: int = Field(0, ge=0, description="steps between evaluations on held-out prompts; 0: never")
    prompts: int = Field(128, ge=1)
    n: int = Field(1, ge=1, description="completions sampled per prompt")
    k: tuple[int, ...] = (1,)
    threshold: float = Field(1.0, description="a completion counts as right if its reward is at least this")
    temperature: float = Field(1.0, ge=0)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: int = Field(0, ge=0)
    min_p: float = Field(0.0, ge=0, le=1)

    @field_validator("k")
    @classmethod
    def _positive(cls, k: tuple[int, ...]) -> tuple[int, ...]:
        if not k or min(k) < 1:
            raise ValueError("k needs at least one value, each 1 or more")
        return k

    @model_validator(mode="after")
    def _enough_completions(self) -> EvaluationSettings:
        if max(self.k) > self.n:
            raise ValueError(f"pass@{max(self.k)} needs n >= {max(self.k)} completions per prompt, n is {self.n}")
        return self
