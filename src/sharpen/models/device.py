"""The device that a user names."""

from __future__ import annotations

import torch

from sharpen.errors import ModelError
from sharpen.suggest import did_you_mean


def resolve_device(name: str) -> torch.device:
    """The device of that name; of auto, the GPU if there is one, else the CPU.

    Raises ModelError if PyTorch knows no such device, or the machine has none.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ModelError(
            f"the device is {name!r}, which PyTorch does not know: use auto, cpu, cuda or a GPU by its number, such as "
            f"cuda:1.{did_you_mean(name, ('auto', 'cpu', 'cuda'))}"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"the device is {name}, but PyTorch finds no GPU on this machine: use auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ModelError(
            f"the device is {name}, but this machine has {torch.cuda.device_count()} GPUs, numbered from cuda:0"
        )
    # It holds no numbers.
    if device.type == "meta":
        raise ModelError("the device is meta, on which nothing is computed: use auto or cpu")
    try:
        torch.zeros(1, device=device).add_(1)
    # What PyTorch raises for a device that it was built without depends on the device.
    except Exception as error:
        raise ModelError(f"the device is {name}, on which PyTorch cannot compute here: use auto or cpu") from error
    return device
