"""A LoRA adapter inside a model: its layers and its weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from sharpen.models.kernels import private_torch

NAME = "default"
"""peft's name for a model's adapter, with which the model runs unless told otherwise; part of its weights' names."""
REFERENCE = "reference"
"""The name of a second, frozen adapter beside it."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter's base model, as a folder or hub id, its peft ``LoraConfig``, and its name inside the model.

    ``base_sha256`` is the hash of the files that the base was loaded from; None if it is not known.
    """

    base: str
    config: Any
    name: str = NAME
    base_sha256: str | None = None

    @property
    def recorded_base(self) -> str:
        """The base as files name it: an absolute path works wherever the adapter is loaded from."""
        return os.path.abspath(self.base) if Path(self.base).is_dir() else self.base


def adapted_layers(model: nn.Module) -> dict[str, Any]:
    """peft's layers in the model, by name."""
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}


def adapter_weights(model: nn.Module, head_name: str | None, adapter: str = NAME) -> dict[str, nn.Parameter]:
    """The adapter's weights: A and B of every adapted layer, and all of the head where one is trained.

    By the names that they have in an adapter called `NAME`, whatever this one is called.
    """
    found: dict[str, nn.Parameter] = {}
    for name, parameter in model.named_parameters():
        layer, lora, rest = name.partition(".lora_")
        part, _, rest = rest.partition(".")
        if lora and part in ("A", "B") and rest.startswith(f"{adapter}."):
            found[f"{layer}{lora}{part}.{NAME}.{rest.removeprefix(f'{adapter}.')}"] = parameter
        elif head_name is not None and name.startswith(f"{head_name}."):
            found[name] = parameter
    return found


@contextmanager
def using_adapter(model: nn.Module, name: str | None) -> Iterator[None]:
    """Run the model with the adapter ``name``, or with none; a model without adapters always runs as it is."""
    if name == NAME:
        yield
        return
    layers = list(adapted_layers(model).values())
    before = [private_torch.switch_adapter(layer, name) for layer in layers]
    try:
        yield
    finally:
        for layer, was in zip(layers, before, strict=True):
            private_torch.switch_adapter(layer, was)
