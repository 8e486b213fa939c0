"""Settings of the model and its LoRA adapter."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from sharpen.models.dtype import AskedDtype
from sharpen.settings import Effect, Name, Settings


class LoraSettings(Settings):
    """A LoRA adapter. It has no dropout, so that sampling and training use the same distribution."""

    rank: int = Field(16, ge=1, le=100_000)
    """Rows of A, columns of B."""
    alpha: int = Field(32, ge=1, le=1_000_000)
    """The update is scaled by alpha / rank."""
    targets: Literal["all-linear"] | tuple[Name, ...] = "all-linear"
    """The layers that get an adapter, by the end of their names, as in `[q_proj, v_proj]`. all-linear: every linear
    layer except the head."""

    @field_validator("targets")
    @classmethod
    def _some(cls, targets: str | tuple[str, ...]) -> str | tuple[str, ...]:
        if not targets:
            raise ValueError("name at least one layer, or use all-linear")
        return targets


class ModelSettings(Settings):
    """The model that is trained, and how it computes."""

    path: Name
    """A Hugging Face folder with safetensors, a run (its latest checkpoint), or a hub id."""
    compute_dtype: AskedDtype = "float32"
    """The type of matrix products; weights, gradients and optimizer stay in float32. auto is bfloat16 where the
    processor or GPU has instructions for it (GPUs since Ampere, AMD since Zen 4, Intel since Cooper Lake), else
    float32, since emulated bfloat16 is many times slower."""
    gradient_checkpointing: bool = False
    """Recompute activations instead of keeping them: less memory, more time."""
    compiled: bool = True
    """Fuse a layer's small operations for training by compiling it; takes half a minute at the start of a run."""
    device: Name = "auto"
    """auto is the GPU if there is one, else the CPU; or a PyTorch device such as cuda:1."""
    lora: LoraSettings | None = None
    """Train an adapter of low rank instead of all weights; null: all weights."""

    effects = (Effect("compiled", "on a GPU", lambda s: not s.device.startswith("cpu")),)
