"""The attention mask of a packed row, as segments.

A row consists of consecutive segments. A token attends to its own segment up to itself and, if the segment continues a
prompt, to that prompt. The [L, L] mask of a row is never materialised.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

import torch
from torch import Tensor

CPU = torch.device("cpu")
T = TypeVar("T")


class Segment(NamedTuple):
    """Tokens ``start`` to ``end`` of the row, which continue the prompt at ``prompt`` to ``prompt_end``, if any."""

    start: int
    end: int
    prompt: int = 0
    prompt_end: int = 0


@dataclass(frozen=True, slots=True)
class Segments:
    """The segments that make up a row of ``length`` tokens, on a device.

    What attention derives from them is cached for all layers.
    """

    segments: tuple[Segment, ...]
    length: int
    device: torch.device = CPU
    _derived: dict[object, Any] = field(default_factory=dict, compare=False, repr=False)

    def to(self, device: torch.device) -> Segments:
        return self if device == self.device else Segments(self.segments, self.length, device)

    def derive(self, key: object, make: Callable[[], T]) -> T:
        """The result of ``make``, cached under ``key``."""
        if key not in self._derived:
            self._derived[key] = make()
        made: T = self._derived[key]
        return made

    def numbers(self) -> tuple[Tensor, Tensor]:
        """The index of each token's segment, and of the prompt it continues or −1; [L] each."""
        starting_at = {segment.start: number for number, segment in enumerate(self.segments)}
        own_L = torch.empty(self.length, dtype=torch.long)
        prompt_L = torch.full((self.length,), -1)
        for number, segment in enumerate(self.segments):
            own_L[segment.start : segment.end] = number
            if segment.prompt_end > segment.prompt:
                prompt_L[segment.start : segment.end] = starting_at[segment.prompt]
        return own_L.to(self.device), prompt_L.to(self.device)
