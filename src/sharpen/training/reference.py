"""The reference policy: fixed, reset, or a moving average, with a cache of its log-probabilities of data."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sharpen.methods.kl import KL
from sharpen.models.forward import MicrobatchLimits, all_outputs
from sharpen.models.policy import Policy
from sharpen.models.reference import average, follow
from sharpen.types import Batch, Completion, Group


class Reference:
    """A frozen policy that may be moved towards ``followed``. A fixed one computes its log-probabilities once."""

    def __init__(self, policy: Policy, followed: Policy, kl: KL) -> None:
        self.policy = policy
        self.followed = followed
        self.kl = kl
        self._cache: dict[int, tuple[Completion, Tensor]] = {}

    @property
    def moves(self) -> bool:
        return self.kl.reference != "fixed"

    def logprobs(self, groups: Sequence[Group], batch: Batch, temperature: float, limits: MicrobatchLimits) -> Tensor:
        """log π_ref of every trained token of the batch, collated from ``groups``: [E, T], on the CPU."""
        completions = [c for group in groups for c in group.completions]
        # Data rows recur as the same objects; sampled completions never do.
        cached = not self.moves and all(c.draw_id is None for c in completions)
        known = [cached and id(c) in self._cache for c in completions]
        result_ET = torch.zeros(batch.tokens_ET.shape)
        fresh_E = ~torch.tensor(known)
        if fresh_E.any():
            part = batch.select(fresh_E.nonzero().squeeze(1))
            result_ET[fresh_E] = all_outputs(self.policy, part, "logprobs", temperature, limits)
        for b, completion in enumerate(completions):
            length = len(completion.token_ids)
            if known[b]:
                result_ET[b, :length] = self._cache[id(completion)][1]
            elif cached:
                self._cache[id(completion)] = (completion, result_ET[b, :length].clone())
        return result_ET

    def move(self, step: int) -> None:
        """Reset or average after ``step``, as the settings say."""
        if self.kl.reference == "average":
            average(self.policy, self.followed, self.kl.decay)
        elif self.kl.reference == "reset" and step % self.kl.reset_every == 0:
            follow(self.policy, self.followed)
