"""How a model is evaluated on held-out prompts."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator, model_validator

from sharpen.settings import LOWEST_TEMPERATURE, Effect, Settings


class EvaluationSettings(Settings):
    """Evaluation on held-out rows before the first step, every `every` steps, and after the last."""

    every: int = Field(0, ge=0)
    """Steps between evaluations; 0: never."""
    prompts: int = Field(128, ge=1)
    """How many held-out prompts to measure on, from the first."""
    n: int = Field(1, ge=1, le=100_000)
    """Completions sampled per prompt."""
    k: tuple[Annotated[int, Field(ge=1)], ...] = Field((1,), min_length=1)
    """The k of pass@k and maj@k; none above `n`."""
    threshold: float = 1.0
    """A completion is right when its reward is at least this."""
    temperature: float = Field(1.0, ge=0, le=1000)
    """Temperature of the sampling; 0: greedy. Otherwise at least 0.0001."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus sampling: keep the most probable tokens up to this total probability."""
    top_k: int = Field(0, ge=0)
    """Keep this many of the most probable tokens; 0: all."""
    min_p: float = Field(0.0, ge=0, le=1)
    """Keep tokens with at least this fraction of the highest probability."""

    effects = (
        # `sharpen reward check` reads the threshold too.
        *(
            Effect(name, "with every", lambda s: s.every > 0)
            for name in ("prompts", "n", "k", "temperature", "top_p", "top_k", "min_p")
        ),
        # At temperature 0 the most probable token is taken.
        *(
            Effect(name, "with temperature above 0", lambda s: s.temperature > 0)
            for name in ("top_p", "top_k", "min_p")
        ),
    )

    @field_validator("temperature")
    @classmethod
    def _greedy_or_finite(cls, temperature: float) -> float:
        if 0 < temperature < LOWEST_TEMPERATURE:
            raise ValueError(f"write 0 for greedy, or at least {LOWEST_TEMPERATURE:g}")
        return temperature

    @model_validator(mode="after")
    def _enough_completions(self) -> EvaluationSettings:
        if max(self.k) > self.n:
            raise ValueError(f"pass@{max(self.k)} needs n >= {max(self.k)} completions per prompt, n is {self.n}")
        return self
