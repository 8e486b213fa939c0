"""What the trainer and the evaluation ask of something that draws completions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

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


class ModelRunner(Protocol):
    """Sequences that are continued side by side, a token at a time."""

    refills: bool
    """Whether sequences may be admitted beside others, or only once all others have left."""

    @property
    def arrangement(self) -> int:
        """Changes whenever a step would compute with other tensors or shapes than the one before."""
        ...

    def admit(self, prompts: Sequence[Prompt], copies: Sequence[int]) -> Tensor:
        """Add ``copies[p]`` rows that begin with prompt p; the logits of their first tokens, [new rows, V]."""
        ...

    def make_room(self) -> None:
        """Be ready for one more token in every row."""
        ...

    def advance(self, token_B: Tensor) -> Tensor:
        """Append a token to every row, after ``make_room``; the logits of the one that follows, [B, V]."""
        ...

    def keep(self, index_B: Tensor) -> None:
        """Let go of all rows but these, which take this order."""
        ...
