"""sharpen's engine with prescribed completion lengths."""

from __future__ import annotations

from collections.abc import Sequence

from sharpen.models.policy import Policy
from sharpen.rollout.engine import Sampling
from sharpen.rollout.local.engine import LocalEngine
from sharpen.rollout.local.request import Request
from sharpen.types import Prompt, Trajectory


def engine_of_lengths(lengths: list[int]) -> type[LocalEngine]:
    """A local engine whose i-th completion of a step has ``lengths[i]`` tokens, whatever it samples."""

    class Forced(LocalEngine):
        def __init__(self, policy: Policy) -> None:
            policy.eos_ids = frozenset()
            super().__init__(policy)

        def generate(
            self, prompts: Sequence[Prompt], draw_ids: Sequence[Sequence[int]], sampling: Sampling, seed: int
        ) -> list[tuple[Trajectory, ...]]:
            requests = [
                Request(prompt, index, draw_id, max_new_tokens=lengths[draw_id % len(lengths)])
                for prompt, ids in enumerate(draw_ids)
                for index, draw_id in enumerate(ids)
            ]
            return self.run_requests(prompts, requests, sampling, seed)

    return Forced
