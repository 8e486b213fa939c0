"""Hashes of weights as they are on disk: those in memory change, and may be spread over several processes."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch
from safetensors import safe_open
from transformers.utils.hub import cached_file

from sharpen.errors import ModelError
from sharpen.models.adapter_files import WEIGHTS as ADAPTER_WEIGHTS
from sharpen.models.adapter_files import find_adapter
from sharpen.models.saved_dtype import REMAINDER

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


def model_sha256(path: str) -> str:
    """Of a model in a folder or on the hub; if that is an adapter, of the adapter and its base model.

    It depends on the weights' names, types, shapes and values, not on how they are spread over files.
    """
    adapter = find_adapter(path)
    return (
        _sha256([*_model_files(path), *_remainder(path)])
        if adapter is None
        else f"{adapter_sha256(path)}+{model_sha256(adapter.base)}"
    )


def adapter_sha256(path: str) -> str:
    """Of an adapter in a folder or on the hub, without its base model."""
    return _sha256([_file(path, ADAPTER_WEIGHTS), *_remainder(path)])


def _remainder(path: str) -> list[Path]:
    """What the files in bfloat16 lack of the weights, if they are."""
    file = Path(path) / REMAINDER
    return [file] if file.is_file() else []


def _model_files(path: str) -> list[Path]:
    try:
        return [_file(path, WEIGHTS)]
    except ModelError:
        # A large model is in several files, which the index names.
        index = json.loads(_file(path, INDEX).read_text(encoding="utf-8"))
        return [_file(path, name) for name in sorted(set(index["weight_map"].values()))]


def _file(path: str, name: str) -> Path:
    try:
        return Path(str(cached_file(path, name)))
    except OSError as error:
        raise ModelError(f"{path}: cannot find its {name}: {error}") from error


def _sha256(files: list[Path]) -> str:
    digest = hashlib.sha256()
    names: dict[str, Path] = {}
    for file in files:
        with safe_open(file, "pt") as opened:
            names |= dict.fromkeys(opened.keys(), file)
    for name, file in sorted(names.items()):
        with safe_open(file, "pt") as opened:
            tensor = opened.get_tensor(name)
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
