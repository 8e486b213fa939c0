"""Post-train language models with reinforcement learning: data source × reward × gradient coefficient."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sharpen.errors import SharpenError

if TYPE_CHECKING:
    from sharpen.api import train
    from sharpen.methods import GRPO, SFT

__version__ = "0.1.0"

__all__ = ["GRPO", "SFT", "SharpenError", "train"]

_HOMES = {"train": "sharpen.api", "GRPO": "sharpen.methods", "SFT": "sharpen.methods"}


def __getattr__(name: str) -> Any:
    # PyTorch takes seconds to import, which `sharpen --help` need not pay.
    if name not in _HOMES:
        raise AttributeError(f"module 'sharpen' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
