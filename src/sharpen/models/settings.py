"""Settings of the model and its LoRA adapter."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from sharpen.models.dtype import AskedDtype
from sharpen.settings import Name, Settings


class LoraSettings(Settings):
    """A LoRA adapter. It has no dropout, so that sampling and training use the same distribution."""

    rank: int = Field(16, ge=1)
    alpha: int = Field(32, ge=1, description="the update is scaled by alpha / rank")
    targets: Literal["all-linear"] | tuple[Name, ...] = "all-linear"
    """The linear layers to adapt, by the end of their names. A language model's head is never adapted."""

    @field_validator("targets")
    @classmethod
    def _some(cls, targets: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not targets:
            raise ValueError("name at least one layer, or use all-linear")
        return targets


class ModelSettings(Settings):
    path: Name = Field(description="a local Hugging Face folder, or the id of a model on the hub")
    compute_dtype: AskedDtype = "float32"
    """The type of matrix products; weights, gradients and optimizer state stay in float32. ``auto``: bfloat16 if the
    CPU or GPU supports it in hardware, else float32."""
    gradient_checkpointing: bool = False
    compiled: bool = Field(True, description="on a GPU: compile the layers, which takes half a minute at the start")
    device: Name = Field("auto", description="auto: the GPU if there is one, else the CPU")
    lora: LoraSettings | None = Field(None, description="train a LoRA adapter instead of all weights")
