"""The interface of a rollout engine, as the trainer and the evaluation use it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sharpen.rollout.sampling import FULL, Truncation
from sharpen.types import Completion, Prompt


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters of a call. ``max_sequences`` limits the completions that are decoded at once."""

    max_new_tokens: int
    truncation: Truncation = FULL
    stop: tuple[str, ...] = ()
    max_sequences: int = 512


class Engine(Protocol):
    def generate(
        self, prompts: Sequence[Prompt], draw_ids: Sequence[Sequence[int]], sampling: Sampling, seed: int
    ) -> list[tuple[Completion, ...]]:
        """One completion of prompt i for each id in ``draw_ids[i]``, in that order."""
        ...

    def publish(self) -> None:
        """Load the policy's current weights."""
        ...
