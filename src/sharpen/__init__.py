"""Post-train language models with reinforcement learning: data source × reward × gradient coefficient."""

from sharpen.api import train
from sharpen.errors import SharpenError
from sharpen.methods import GRPO, SFT

__version__ = "0.1.0"

__all__ = ["GRPO", "SFT", "SharpenError", "train"]
