"""What the trainer and the evaluation ask of something that draws completions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sharpen.rollout.sampling import FULL, Truncation
from sharpen.types import Completion, Prompt


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn and where they end."""

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
        """Take over the policy's present weights."""
        ...
