"""The machine that a recipe is written for."""

from __future__ import annotations

import os
from dataclasses import dataclass

import torch

from sharpen.system.memory import GIB


@dataclass(frozen=True, slots=True)
class Machine:
    """Its GPU, if it has one, and the memory in GiB that models have: the GPU's, or the main memory."""

    gpu: str | None
    memory_gib: float

    def __str__(self) -> str:
        return f"{self.gpu or 'a CPU'} with {self.memory_gib:.0f} GiB"


def this_machine() -> Machine:
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return Machine(properties.name, properties.total_memory / GIB)
    return Machine(None, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB)
