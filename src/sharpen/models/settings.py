"""How a model is loaded and which of its weights are trained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from sharpen.models.dtype import AskedDtype
from sharpen.settings import Settings


class LoraSettings(Settings):
    """There is no dropout: sampling and training have to see the same distribution."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1, description="the update counts alpha / rank times")
    targets: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    """The linear layers that get an adapter, by the end of their names. The head of a language model never does."""

    @field_validator("targets")
    @classmethod
    def _some(cls, targets: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not targets:
            raise ValueError("give at least one layer, or all-linear")
        return targets


class ModelSettings(Settings):
    path: str = Field(description="a local Hugging Face folder, or the id of a model on the hub")
    compute_dtype: AskedDtype = "float32"
    """Matrix products run in this type; weights, gradients and optimizer state stay in float32. ``auto``: bfloat16
    where the processor or GPU has instructions for it, else float32."""
    gradient_checkpointing: bool = False
    compiled: bool = Field(True, description="on a GPU: fuse a layer's small operations, half a minute at the start")
    device: str = Field("auto", description="auto: the GPU where there is one, else the CPU")
    lora: LoraSettings | None = Field(None, description="train an adapter of low rank instead of all weights")
