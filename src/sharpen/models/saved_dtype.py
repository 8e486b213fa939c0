"""Weights on disk in another type than float32, in which they are trained.

A checkpoint in bfloat16 stays exact: of every weight the upper 16 bits, rounded, are in the model's own files, and what
they lack is beside them in ``trainer/remainder.safetensors``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from sharpen.errors import ModelError
from sharpen.models.dtype import Dtype, SavedDtype
from sharpen.models.kernels import private_torch

REMAINDER = Path("trainer") / "remainder.safetensors"
"""In a model's folder: what its files, in bfloat16, lack of its float32 weights."""


def save_pretrained(model: Any, folder: Path, dtype: SavedDtype) -> None:
    """Write a transformers model in ``dtype``; weights that transformers always loads in float32 stay in float32.

    Raises ModelError if a weight is too large for ``dtype``.
    """
    if dtype == "float32":
        model.save_pretrained(folder)
        return
    kept = private_torch.kept_in_float32(model, getattr(torch, dtype))
    done: dict[int, Tensor] = {}
    state: dict[str, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if any(re.search(rf"(^|\.){pattern}(\.|$)", name) for pattern in kept):
            state[name] = tensor
        else:
            # Tied weights stay one tensor: transformers then writes it once.
            state[name] = done.setdefault(tensor.data_ptr(), rounded(name, tensor, dtype))
    model.save_pretrained(folder, state_dict=state)
    _declare(folder / "config.json", dtype)


def rounded(name: str, tensor: Tensor, dtype: SavedDtype) -> Tensor:
    """``tensor`` in ``dtype``; a tensor of integers as it is. Raises ModelError if a number is too large."""
    if not tensor.is_floating_point():
        return tensor
    found = tensor.to(getattr(torch, dtype))
    if found.isinf().any() and not tensor.isinf().any():
        raise ModelError(
            f"{name}: its largest number, {tensor.abs().max().item():g}, is too large for {dtype}: choose bfloat16 or "
            "float32"
        )
    return found


def write_remainder(tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write what ``tensors``, rounded to bfloat16, lack. Tensors that share memory are written once."""
    parts: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, tensor in tensors.items():
        if tensor.dtype == torch.float32 and tensor.data_ptr() not in seen:
            seen.add(tensor.data_ptr())
            parts |= {f"{name}.{part}": value for part, value in remainder(tensor).items()}
    (folder / REMAINDER).parent.mkdir(exist_ok=True)
    save_file(parts, folder / REMAINDER)


@torch.no_grad()
def add_remainder(tensors: Mapping[str, Tensor], folder: str | Path) -> None:
    """Make weights that were read in bfloat16 exact, in place, if the folder has what they lack.

    Names that ``tensors`` lacks are passed over: a model of another class may have another head. Raises ModelError if
    a shape differs.
    """
    file = Path(folder) / REMAINDER
    if not file.is_file():
        return
    parts = load_file(file)
    for name in [key.removesuffix(".low") for key in parts if key.endswith(".low")]:
        if name not in tensors:
            continue
        weight = tensors[name]
        found = {part: parts[key] for part in ("low", "index", "value") if (key := f"{name}.{part}") in parts}
        if found["low"].shape != weight.shape:
            raise ModelError(f"{file}: {name} has the shape {list(found['low'].shape)}, not {list(weight.shape)}")
        weight.copy_(restored(weight.float().cpu().bfloat16(), found))


def remainder(exact: Tensor) -> dict[str, Tensor]:
    """What the bfloat16 rounding of a float32 tensor lacks: ``low`` is added to its bits, in 16 bits.

    The few numbers that need more, half of those exactly between two bfloat16 numbers, are in ``value`` at ``index``.
    """
    exact = exact.detach().cpu().contiguous()
    upper = exact.bfloat16()
    low = (exact.view(torch.int32) - _bits(upper)).clamp(-(2**15), 2**15 - 1).to(torch.int16)
    parts = {"low": low}
    wrong = restored(upper, parts).view(torch.int32) != exact.view(torch.int32)
    if wrong.any():
        index = wrong.flatten().nonzero()[:, 0]
        parts |= {"index": index, "value": exact.flatten()[index]}
    return parts


def restored(upper: Tensor, parts: Mapping[str, Tensor]) -> Tensor:
    """The float32 tensor of which ``upper`` is the bfloat16 rounding and ``parts`` its `remainder`."""
    found = (_bits(upper) + parts["low"].to(torch.int32)).view(torch.float32)
    if "index" in parts:
        found.view(-1)[parts["index"]] = parts["value"]
    return found


def saved_dtype(folder: Path) -> Dtype:
    """The type in which a checkpoint's model was written."""
    return "bfloat16" if (folder / REMAINDER).is_file() else "float32"


def named_weights(model: nn.Module) -> dict[str, Tensor]:
    """All parameters and saved buffers, without gradient."""
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


def _bits(upper: Tensor) -> Tensor:
    """The bits of bfloat16 numbers as the upper half of 32."""
    return upper.contiguous().view(torch.int16).to(torch.int32) << 16


def _declare(file: Path, dtype: SavedDtype) -> None:
    """Say in a configuration, and in those nested in it, which type the weights have."""

    def changed(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: dtype if key == "dtype" and part else changed(part) for key, part in value.items()}

    config = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(changed(config), indent=2, sort_keys=True) + "\n", encoding="utf-8")
