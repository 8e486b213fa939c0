"""LoRA adapters on disk in peft's format: ``adapter_config.json`` and ``adapter_model.safetensors``.

transformers and peft load such a folder like a model, since the configuration names the base model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.utils.hub import cached_file
from transformers.utils.peft_utils import find_adapter_config_file

from sharpen.errors import ModelError
from sharpen.models.adapter import NAME, Adapter, adapted_layers, adapter_weights
from sharpen.models.dtype import SavedDtype
from sharpen.models.kernels import private_torch
from sharpen.models.saved_dtype import add_remainder, rounded
from sharpen.suggest import folder_or_hub

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."

SCALING_SETTINGS = ("r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern")
"""Settings that must agree, as must the weights' names, for two adapters' weights to be interchangeable."""


def holds_model(folder: Path) -> bool:
    """Whether a folder holds a model or an adapter."""
    return any((folder / name).is_file() for name in ("config.json", CONFIG))


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """A saved adapter, in a folder or on the hub."""

    path: str
    config: Mapping[str, Any]

    @property
    def base(self) -> str:
        """The base model. Raises ModelError if none is named, or if it is missing or itself an adapter."""
        base = self.config.get("base_model_name_or_path")
        if not base:
            raise ModelError(f"{self.path}: its {CONFIG} names no base model (base_model_name_or_path)")
        revision = self.config.get("revision")
        if revision not in (None, "main") and not Path(base).is_dir():
            raise ModelError(
                f"{self.path}: its {CONFIG} names revision {revision} of its base model, {base}: download that "
                "revision to a folder, and name the folder there instead (base_model_name_or_path)"
            )
        if Path(base).is_absolute() and not Path(base).is_dir():
            raise ModelError(f"{self.path}: its base model, {base}, does not exist: put the model or a link there")
        if Path(base).is_dir() and not holds_model(Path(base)):
            hint = folder_or_hub(base, "model")
            raise ModelError(
                f"{self.path}: its base model, {base}, is a folder without config.json{hint and '.'}{hint}"
            )
        if find_adapter(base) is not None:
            raise ModelError(f"{self.path}: its base model, {base}, is itself an adapter: `sharpen merge` it first")
        return str(base)

    @property
    def scores(self) -> bool:
        """Whether the adapter turns its base model into a scorer."""
        return str(self.config.get("task_type")).endswith("_CLS")

    def weights(self) -> dict[str, Tensor]:
        """The weights in float32 by peft's names for them inside the model."""
        return {_module_name(name): tensor for name, tensor in self.tensors().items()}

    def tensors(self) -> dict[str, Tensor]:
        """The weights in float32 by their names in the file."""
        try:
            file = cached_file(self.path, WEIGHTS)
        except OSError as error:
            raise ModelError(f"{self.path}: this adapter has no {WEIGHTS}; only safetensors is supported") from error
        found = {name: tensor.float() for name, tensor in load_file(str(file)).items()}
        add_remainder(found, self.path)
        return found


def find_adapter(path: str) -> AdapterFiles | None:
    """The adapter at a folder or hub id; None if it holds a full model or nothing.

    Raises ModelError if a folder holds both a model and an adapter, or if the adapter is not LoRA.
    """
    try:
        file = find_adapter_config_file(path)
    except OSError:
        # Loading the model will report the problem.
        return None
    if file is None:
        return None
    if (Path(path) / "config.json").is_file():
        raise ModelError(f"{path}: holds both a full model and an adapter: remove config.json or {CONFIG}")
    try:
        config = json.loads(Path(file).read_text(encoding="utf-8"))
        kind = config["peft_type"]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path}: cannot read its {CONFIG}: {error!r}") from error
    if kind != "LORA":
        raise ModelError(
            f"{path}: its {CONFIG} has peft_type: {kind}; only LORA is supported. If peft can merge this adapter into "
            "its base model (merge_and_unload), give the merged model"
        )
    return AdapterFiles(path, config)


def write_adapter(
    model: nn.Module, adapter: Adapter, head_name: str | None, folder: Path, dtype: SavedDtype = "float32"
) -> dict[str, Tensor]:
    """Write the adapter, and the head where one is trained; returns the weights, in float32, by their names there."""
    config = (
        adapter.config.to_dict()
        | _targets(model, adapter.config)
        | {
            "base_model_name_or_path": adapter.recorded_base,
            "modules_to_save": None if head_name is None else [head_name],
            "inference_mode": True,
        }
    )
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    (folder / CONFIG).write_text(json.dumps(plain, indent=2, sort_keys=True), encoding="utf-8")
    tensors = {
        _file_name(name): p.detach().cpu().contiguous()
        for name, p in adapter_weights(model, head_name, adapter.name).items()
    }
    save_file({n: rounded(n, t, dtype) for n, t in tensors.items()}, folder / WEIGHTS, metadata={"format": "pt"})
    return tensors


def _targets(model: nn.Module, config: Any) -> dict[str, list[str]]:
    """The targets as peft will find them when it loads the adapter.

    In some mixtures of experts, peft takes a layer's name for that of the experts in files of earlier versions, even if
    other layers have it too, such as a shared expert. These are therefore named by their weights.
    """
    taken = tuple(t for t in config.target_modules if private_torch.means_experts(t, config, model))
    named = [name for name in adapted_layers(model) if name in taken or name.endswith(tuple(f".{t}" for t in taken))]
    return {
        "target_modules": sorted(set(config.target_modules) - set(taken)),
        **({"target_parameters": sorted(f"{name}.weight" for name in named)} if named else {}),
    }


@torch.no_grad()
def fill_adapter(
    model: nn.Module, weights: Mapping[str, Tensor], files: AdapterFiles, head_name: str | None, adapter: str = NAME
) -> None:
    """Copy a saved adapter's weights into the model's layers, and a scorer's head.

    Raises ModelError if the adapter holds anything else, or lacks a layer.
    """
    own = adapter_weights(model, head_name, adapter)
    saved_head = next(iter(files.config.get("modules_to_save") or ()), None)
    # The two kinds of scorer may name their heads differently, and only one has a bias.
    if head_name is not None and saved_head is not None:
        weights = {_renamed(name, saved_head, head_name): tensor for name, tensor in weights.items()}
        weights = {name: t for name, t in weights.items() if name in own or not name.startswith(f"{head_name}.")}
    missing = [_file_name(name) for name in own if ".lora_" in name and name not in weights]
    unexpected = [_file_name(name) for name, t in weights.items() if name not in own or own[name].shape != t.shape]
    if missing or unexpected:
        what = f"lacks {missing[0]}" if missing else f"has {unexpected[0]}, which model.lora does not train"
        raise ModelError(
            f"{files.path}: cannot continue to train this adapter: it {what}. `sharpen merge` it into a model first"
        )
    for name, tensor in weights.items():
        own[name].copy_(tensor)


def _renamed(name: str, before: str, after: str) -> str:
    return f"{after}.{name.removeprefix(before + '.')}" if name.startswith(f"{before}.") else name


def adapter_shapes(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of A and B by the names that `AdapterFiles.weights` gives them."""
    return {_module_name(_file_name(n)): tuple(p.shape) for n, p in adapter_weights(model, None).items()}


def _file_name(name: str) -> str:
    return PREFIX + name.replace(f".{NAME}.weight", ".weight") if ".lora_" in name else PREFIX + name


def _module_name(name: str) -> str:
    name = name.removeprefix(PREFIX)
    ending = ".weight"
    return f"{name.removesuffix(ending)}.{NAME}{ending}" if ".lora_" in name and name.endswith(ending) else name
