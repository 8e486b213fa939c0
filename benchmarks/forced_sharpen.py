"""sharpen's engine, with lengths that are given."""

from __future__ import annotations

from sharpen.models.policy import Policy
from sharpen.rollout.engine import Sampling
from sharpen.rollout.local.engine import LocalEngine
from sharpen.types import Prompt


def engine_of_lengths(lengths: list[int]) -> type[LocalEngine]:
    """The local engine, whose completion i of a step ends at its ``lengths[i]``-th token, whatever it draws."""

    class Forced(LocalEngine):
        def __init__(self, policy: Policy) -> None:
            policy.eos_ids = frozenset()
            super().__init__(policy)

        def limit(self, prompt: Prompt, draw_id: int, sampling: Sampling) -> int:
            return lengths[draw_id % len(lengths)]

    return Forced
