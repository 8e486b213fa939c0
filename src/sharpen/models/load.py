"""Loading shared by policies and scorers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoTokenizer

from sharpen.errors import ModelError
from sharpen.models.adapter_files import holds_model
from sharpen.models.device import resolve_device
from sharpen.models.kernels.compiled import compiles
from sharpen.models.kernels.linear import switch_linears
from sharpen.models.kernels.memory_efficient import make_memory_efficient
from sharpen.models.modules import PLAIN_ARCHITECTURES
from sharpen.models.progress_bars import without_progress_bars
from sharpen.models.saved_dtype import add_remainder, named_weights
from sharpen.suggest import did_you_mean, folder_or_hub
from sharpen.system.memory import keep_freed_memory
from sharpen.system.shown import cut
from sharpen.system.user_code import TEXT


def located(path: str | Path) -> str:
    """The folder, with ~ expanded, or hub id of a model or adapter.

    A folder of the working directory goes before a model of that name on the hub. Raises ModelError if there is neither
    model nor adapter in the folder, and if ``path`` could be a hub id but begins with a folder's name.
    """
    path = str(path)
    if path.startswith((".", "/", "~")) or path.count("/") > 1 or Path(Path(path).parts[0]).is_dir():
        given, folder = path, Path(path).expanduser()
        path = str(folder)
        if not holds_model(folder):
            found = "it has no config.json" if folder.is_dir() else "there is no such folder"
            beside = [] if folder.is_dir() or not folder.parent.is_dir() else os.listdir(folder.parent)
            hints = f"{did_you_mean(folder.name, beside)}{folder_or_hub(given, 'model')}"
            raise ModelError(f"{path}: not a model folder: {found}{hints and '.'}{hints}")
    return path


def load_weights(auto: Any, path: str, *, trust_remote_code: bool, **settings: Any) -> tuple[Any, set[str]]:
    """A model with float32 weights by one of transformers' auto classes, and the names of its missing weights.

    Only safetensors is supported. Missing weights are random, but PyTorch's random state does not change.

    Raises ModelError if there is no such model or no safetensors.
    """
    try:
        with without_progress_bars(), torch.random.fork_rng(devices=[]):
            model, info = auto.from_pretrained(
                path,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                # So that the message below can name the weights.
                ignore_mismatched_sizes=True,
                **settings,
            )
    # transformers raises whatever the content of a damaged file leads to.
    except Exception as error:
        raise _unusable(path, "this model", error) from error
    if mismatched := sorted(info["mismatched_keys"]):
        name, in_file, in_model = mismatched[0]
        more = f", and {len(mismatched) - 1} more" if mismatched[1:] else ""
        raise ModelError(
            f"{path}: cannot load this model: the weight {name} has the shape {list(in_file)} in its files and "
            f"{list(in_model)} by its config.json{more}"
        )
    add_remainder(named_weights(model), path)
    return model, set(info["missing_keys"])


def load_config(path: str, *, trust_remote_code: bool) -> Any:
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    # As above.
    except Exception as error:
        raise _unusable(path, "this model", error) from error


def load_tokenizer(path: str, *, trust_remote_code: bool) -> Any:
    try:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    # As above.
    except Exception as error:
        raise _unusable(path, "this model's tokenizer", error) from error


def _unusable(path: str, what: str, error: Exception) -> ModelError:
    """Only OSError and ValueError have texts that transformers wrote for users."""
    kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
    return ModelError(f"{path}: cannot load {what}: {kind}{cut(str(error), TEXT)}")


def refuse_missing(path: str, missing: set[str]) -> None:
    """Raises ModelError if weights are missing from the files: they would silently be random."""
    if missing:
        some = ", ".join(sorted(missing)[:5]) + (", …" if len(missing) > 5 else "")
        raise ModelError(f"{path}: cannot load this model: its files lack {len(missing)} of its weights ({some})")


def prepare(model: Any, *, device: str, gradient_checkpointing: bool, compiled: bool = True) -> None:
    """Move the model to its device and disable dropout, so that sampling and training use the same distribution.

    Linear layers use the faster library where there are two (`sharpen.models.kernels.linear`). The layers of plain
    architectures are compiled on a GPU, if ``compiled``, and otherwise save less for the backward pass
    (`sharpen.models.kernels.memory_efficient`).
    """
    keep_freed_memory()
    model.to(resolve_device(device))
    switch_linears(model)
    if model.config.model_type in PLAIN_ARCHITECTURES:
        if compiled and compiles(model.device):
            for layer in model.base_model.layers:
                # One compilation serves all layers and row lengths.
                layer.compile(dynamic=True)
        else:
            make_memory_efficient(model.base_model)
    _disable_dropout(model)
    model.eval()
    if gradient_checkpointing:
        # transformers is renaming gradient_checkpointing_enable, its name in 5.17.
        enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
        enable({"use_reentrant": False})
        # transformers only checkpoints in training mode, which without dropout changes nothing else.
        model.train()


def align(model: nn.Module) -> None:
    """Give the weights torch's alignment in memory, so that they compute bit for bit what the saved ones did.

    Matrix products round differently with another alignment, and weights mapped from a file may have any.
    """
    for weight in (*model.parameters(), *model.buffers()):
        weight.data = weight.data.clone()


def _disable_dropout(model: Any) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        # Functional dropout takes its probability from a module attribute: attention_dropout, dropout, layerdrop, …
        for name, value in list(vars(module).items()):
            if "drop" in name and isinstance(value, float):
                setattr(module, name, 0.0)
