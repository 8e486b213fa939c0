"""The GPU as the place where a contestant computes."""

from __future__ import annotations

import torch
from worker import Host, Place


class Gpu:
    """What this process's tensors take of the GPU's memory. ``release``: between steps others may have the rest."""

    def __init__(self, *, release: bool) -> None:
        self._release = release

    def finish(self) -> None:
        torch.cuda.synchronize()

    def now(self) -> int:
        return torch.cuda.memory_allocated()

    def peak(self) -> int:
        return torch.cuda.max_memory_allocated()

    def rest(self) -> None:
        if self._release:
            torch.cuda.empty_cache()

    def restart(self) -> None:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()


def place_of(device: str, *, release: bool = False) -> Place:
    return Host() if device == "cpu" else Gpu(release=release)
