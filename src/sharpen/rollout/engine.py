"""The interface of a rollout engine, as the trainer and the evaluation use it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sharpen.models.policy import Policy
from sharpen.rollout.sampling import FULL, Truncation
from sharpen.types import Prompt, Trajectory


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling parameters of a call. ``max_sequences`` limits the completions that are decoded at once."""

    max_new_tokens: int
    truncation: Truncation = FULL
    stop: tuple[str, ...] = ()
    max_sequences: int = 512


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A published version of the policy, one for each training step."""

    version: int
    policy: Policy


class Engine(Protocol):
    def generate(
        self, prompts: Sequence[Prompt], draw_ids: Sequence[Sequence[int]], sampling: Sampling, seed: int
    ) -> list[tuple[Trajectory, ...]]:
        """One completion of prompt i for each id in ``draw_ids[i]``, in that order."""
        ...

    def load(self, snapshot: Snapshot) -> None:
        """Serve this version of the policy from now on."""
        ...
