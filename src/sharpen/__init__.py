"""Post-train language models with reinforcement learning, on a CPU or one GPU."""

from typing import TYPE_CHECKING

from sharpen.errors import SharpenError
from sharpen.system.lazy_imports import lazily

if TYPE_CHECKING:
    from sharpen.api import train
    from sharpen.methods import GRPO, SFT

__version__ = "0.1.0"

__all__ = ["GRPO", "SFT", "SharpenError", "train"]

__getattr__ = lazily(__name__, {"train": "sharpen.api", "GRPO": "sharpen.methods", "SFT": "sharpen.methods"})
