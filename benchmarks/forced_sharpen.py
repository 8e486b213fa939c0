"""sharpen's engine with prescribed completion lengths."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sharpen.models.policy import Policy
from sharpen.rollout.engine import Request
from sharpen.rollout.local.engine import LocalEngine


def engine_of_lengths(lengths: list[int]) -> type[LocalEngine]:
    """A local engine whose i-th completion of a step has ``lengths[i]`` tokens, whatever it samples."""

    class Forced(LocalEngine):
        def __init__(self, policy: Policy, *, max_sequences: int = 512) -> None:
            policy.eos_ids = frozenset()
            super().__init__(policy, max_sequences=max_sequences)

        def add(self, requests: Sequence[Request]) -> None:
            super().add(
                [
                    replace(r, sampling=replace(r.sampling, max_new_tokens=lengths[r.draw_id % len(lengths)]))
                    for r in requests
                ]
            )

    return Forced
