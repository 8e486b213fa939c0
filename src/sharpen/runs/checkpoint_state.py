"""The trainer's part of a checkpoint: its state, its further files, and its optimizers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sharpen.errors import CheckpointError
from sharpen.runs.checkpoint_check import STATE, read_json

_MOMENTS = ("exp_avg", "exp_avg_sq")
"""What AdamW keeps of each parameter, in the parameter's shape, beside its scalar `step`."""


def write_state(checkpoint: Path, state: Mapping[str, Any]) -> None:
    (checkpoint / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")


def load_state(checkpoint: Path) -> dict[str, Any]:
    """Raises CheckpointError if it cannot be read, or has no step."""
    state = read_json(checkpoint / STATE)
    if not isinstance(state, dict) or type(state.get("step")) is not int or not _is_best(state.get("best")):
        raise CheckpointError(f"{checkpoint / STATE}: damaged, it is not a trainer's state")
    return state


@contextmanager
def fitting(checkpoint: Path, name: str = STATE) -> Iterator[None]:
    """Turns what the content of a checkpoint's file leads to, if it is of another shape, into a CheckpointError.

    Its hash only says that it is what was written, perhaps by another version or by hand.
    """
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise CheckpointError(
            f"{checkpoint / name}: this run cannot go on from it: it is not what this version of sharpen writes "
            f"({error!r})"
        ) from error


def load_text(checkpoint: Path, name: str) -> str | None:
    """One of the trainer's further files; None if the checkpoint has none of that name."""
    file = checkpoint / "trainer" / name
    if not file.exists():
        return None
    with fitting(checkpoint, f"trainer/{name}"):
        return file.read_text(encoding="utf-8")


def write_optimizer(checkpoint: Path, name: str, optimizer: torch.optim.Optimizer) -> None:
    tensors = {
        f"{index}.{part}": value.contiguous().cpu()
        for index, entry in optimizer.state_dict()["state"].items()
        for part, value in entry.items()
    }
    save_file(tensors, checkpoint / _optimizer_file(name))


def load_optimizer(checkpoint: Path, name: str, optimizer: torch.optim.Optimizer) -> None:
    """Load an optimizer's saved state. Raises CheckpointError if it is not that of such an optimizer."""
    file = checkpoint / _optimizer_file(name)
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{file}: cannot be read: {error}") from error
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, _, part = key.partition(".")
        if not index.isdecimal():
            raise CheckpointError(f"{file}: {key} is not of an optimizer")
        entries.setdefault(int(index), {})[part] = value
    if entries and max(entries) >= len(parameters):
        raise CheckpointError(f"{checkpoint}: its optimizer has more parameters than the model, {len(parameters)}")
    for number, entry in entries.items():
        if (misfit := _misfit(entry, parameters[number])) is not None:
            raise CheckpointError(f"{file}: {number}.{misfit}")
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": entries, "param_groups": groups})


def _misfit(entry: Mapping[str, Tensor], parameter: Tensor) -> str | None:
    """What of a parameter's entry is not AdamW's, or None."""
    expected = {"step": (torch.Size(), torch.float32)} | dict.fromkeys(_MOMENTS, (parameter.shape, parameter.dtype))
    for part, (shape, dtype) in expected.items():
        if part not in entry:
            return f"{part} is missing"
        if entry[part].shape != shape or entry[part].dtype != dtype:
            found = f"{entry[part].dtype} {list(entry[part].shape)}"
            return f"{part} is {found}, and the model's is {dtype} {list(shape)}"
    unknown = next((part for part in entry if part not in expected), None)
    return None if unknown is None else f"{unknown} is not AdamW's"


def _optimizer_file(name: str) -> str:
    return f"trainer/optimizer_{name}.safetensors" if name else "trainer/optimizer.safetensors"


def _is_best(best: Any) -> bool:
    if best is None:
        return True
    return isinstance(best, dict) and type(best.get("step")) is int and isinstance(best.get("value"), int | float)
