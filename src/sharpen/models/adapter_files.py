"""Adapters on disk, in peft's format: ``adapter_config.json`` and ``adapter_model.safetensors``.

transformers and peft load such a folder as they load a model: the configuration names the base model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils.hub import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from sharpen.errors import ModelError
from sharpen.models.lora import NAME, adapted_layers

if TYPE_CHECKING:
    from sharpen.models.model import Model

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."

SAME = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern")
"""What of two configurations decides, beside the names of the weights, that the same weights mean the same."""


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """An adapter in a folder or on the hub."""

    path: str
    config: Mapping[str, Any]

    @property
    def base(self) -> str:
        """The model that it belongs to. Raises ModelError if none is named, or it is not there or an adapter itself."""
        base = self.config.get("base_model_name_or_path")
        if not base:
            raise ModelError(f"{self.path}: its {CONFIG} names no base model (base_model_name_or_path)")
        if Path(base).is_absolute() and not Path(base).is_dir():
            raise ModelError(f"{self.path}: an adapter of the model {base}, which is not there: put it or a link there")
        if find_adapter(base) is not None:
            raise ModelError(f"{self.path}: its base model, {base}, is an adapter itself: `sharpen merge` it first")
        return str(base)

    @property
    def scores(self) -> bool:
        """Whether it makes a scorer of its base."""
        return str(self.config.get("task_type")).endswith("_CLS")

    def weights(self) -> dict[str, Tensor]:
        """By their names in the model, as peft names them there."""
        try:
            file = cached_file(self.path, WEIGHTS)
        except OSError as error:
            raise ModelError(f"{self.path}: an adapter without {WEIGHTS}; only safetensors is read") from error
        return {_inside(name): tensor for name, tensor in load_file(str(file)).items()}


def find_adapter(path: str) -> AdapterFiles | None:
    """The adapter at a folder or hub id, or None: a whole model, or nothing at all.

    Raises ModelError for a folder that is both, and for anything but LoRA.
    """
    try:
        file = find_adapter_config_file(path)
    except OSError:
        # Whoever loads the model says what is wrong.
        return None
    if file is None:
        return None
    if (Path(path) / "config.json").is_file():
        raise ModelError(f"{path}: holds a whole model and an adapter; keep config.json or {CONFIG}")
    try:
        config = json.loads(Path(file).read_text(encoding="utf-8"))
        kind = config["peft_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: its {CONFIG} cannot be read: {error!r}") from error
    if kind != "LORA":
        raise ModelError(f"{path}: an adapter of type {kind}; sharpen reads LORA")
    return AdapterFiles(path, config)


def write_adapter(model: Model, folder: Path) -> None:
    """Write the adapter, and the head where one is trained in full."""
    assert model.adapter is not None
    base = model.adapter.base
    config = model.adapter.config.to_dict() | {
        # A folder is found from wherever the adapter is loaded.
        "base_model_name_or_path": os.path.abspath(base) if Path(base).is_dir() else base,
        "modules_to_save": None if model.head_name is None else [model.head_name],
        "inference_mode": True,
    }
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    (folder / CONFIG).write_text(json.dumps(plain, indent=2, sort_keys=True), encoding="utf-8")
    tensors = {_outside(name): p.detach().cpu().contiguous() for name, p in adapter_weights(model).items()}
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def adapter_weights(model: Model) -> dict[str, nn.Parameter]:
    """What an adapter consists of: A and B of every adapted layer, and a head that is trained in full."""
    head = None if model.head_name is None else f"{model.head_name}."
    return {
        name: parameter
        for name, parameter in model.model.named_parameters()
        if ".lora_A." in name or ".lora_B." in name or (head is not None and name.startswith(head))
    }


def read_adapter(model: Model, files: AdapterFiles) -> None:
    """Put the weights of a saved adapter into the model's own, which has to be of the same settings.

    Raises ModelError if it is of others.
    """
    assert model.adapter is not None
    own = model.adapter.config.to_dict()
    new = {_inside(_outside(name)): tuple(p.shape) for name, p in adapter_weights(model).items() if ".lora_" in name}
    weights = files.weights()
    found = {name: tuple(tensor.shape) for name, tensor in weights.items() if ".lora_" in name}
    if new != found or any(files.config.get(key, own[key]) != own[key] for key in SAME):
        targets = files.config.get("target_modules")
        raise ModelError(
            f"{files.path}: an adapter of rank {files.config.get('r')} and alpha {files.config.get('lora_alpha')} on "
            f"{targets if isinstance(targets, str) else ', '.join(sorted(targets or ()))}, which model.lora does not "
            "say: give these settings to go on with it, or `sharpen merge` it into a model to begin a new one"
        )
    _fill(model.model, weights, files, model.head_name)


def merge_adapter(model: nn.Module, files: AdapterFiles, head: str | None = None) -> None:
    """Add a saved adapter to the weights of its base, in place; ``head`` is the model's own head beside the backbone.

    Raises ModelError if the adapter has something else than plain LoRA, or does not belong to this model.
    """
    from peft import LoraConfig, inject_adapter_in_model

    names = {"r", "target_modules", "exclude_modules", "layers_to_transform", "layers_pattern", "fan_in_fan_out"}
    settings = {key: value for key, value in files.config.items() if key in names | set(SAME)}
    try:
        inject_adapter_in_model(LoraConfig(**settings), model, NAME)
    except ValueError as error:
        raise ModelError(f"{files.path}: cannot be put into its base model: {error}") from error
    _fill(model, files.weights(), files, head)
    for name, layer in adapted_layers(model).items():
        layer.merge()
        model.set_submodule(name, layer.base_layer)
    del model.peft_config
    model.requires_grad_(True)


@torch.no_grad()
def _fill(model: nn.Module, weights: Mapping[str, Tensor], files: AdapterFiles, head: str | None) -> None:
    own = dict(model.named_parameters())
    saved_head = next(iter(files.config.get("modules_to_save") or ()), None)
    # The two kinds of scorers may name their heads differently, and only one has a bias.
    if head is not None and saved_head is not None:
        weights = {_renamed(name, saved_head, head): tensor for name, tensor in weights.items()}
        weights = {name: t for name, t in weights.items() if name in own or not name.startswith(f"{head}.")}
    missing = [_outside(name) for name in own if ".lora_" in name and name not in weights]
    strange = [_outside(name) for name, t in weights.items() if name not in own or own[name].shape != t.shape]
    if missing or strange:
        what = f"lacks {missing[0]}" if missing else f"has {strange[0]}, for which its base model has no place"
        raise ModelError(f"{files.path}: cannot load this adapter: it {what}")
    for name, tensor in weights.items():
        own[name].copy_(tensor)


def _renamed(name: str, before: str, after: str) -> str:
    return f"{after}.{name.removeprefix(before + '.')}" if name.startswith(f"{before}.") else name


def _outside(name: str) -> str:
    return PREFIX + name.replace(f".{NAME}.weight", ".weight") if ".lora_" in name else PREFIX + name


def _inside(name: str) -> str:
    name = name.removeprefix(PREFIX)
    ending = ".weight"
    return f"{name.removesuffix(ending)}.{NAME}{ending}" if ".lora_" in name and name.endswith(ending) else name
