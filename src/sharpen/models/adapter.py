"""A LoRA adapter inside a model: its layers and its weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn

NAME = "default"
"""peft's name for a model's only adapter; it is part of the names of its weights."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter's base model, as a folder or hub id, and its peft ``LoraConfig``."""

    base: str
    config: Any


def adapted_layers(model: nn.Module) -> dict[str, Any]:
    """peft's layers in the model, by name."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}


def adapter_weights(model: nn.Module, head_name: str | None) -> dict[str, nn.Parameter]:
    """The adapter's weights: A and B of every adapted layer, and all of the head where one is trained."""
    head = None if head_name is None else f"{head_name}."
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if ".lora_A." in name or ".lora_B." in name or (head is not None and name.startswith(head))
    }
