"""The reference policy: fixed, reset, or a moving average, with a cache of its log-probabilities of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from sharpen.batch import Batch
from sharpen.methods.kl import KL
from sharpen.methods.streams import Producer, StepModels
from sharpen.models.policy import Policy
from sharpen.models.reference import average, follow
from sharpen.types import Group, Trajectory


class Reference:
    """A frozen policy that may be moved towards ``followed``. A fixed one computes its log-probabilities once."""

    def __init__(self, policy: Policy, followed: Policy, kl: KL) -> None:
        self.policy = policy
        self.followed = followed
        self.kl = kl
        self._cache: dict[int, tuple[Trajectory, Tensor]] = {}

    @property
    def moves(self) -> bool:
        return self.kl.reference != "fixed"

    @property
    def producer(self) -> Producer:
        return Producer(("ref_logprobs",), self._logprobs)

    def _logprobs(self, batch: Batch, groups: Sequence[Group], models: StepModels) -> Mapping[str, Tensor]:
        trajectories = [t for group in groups for t in group.trajectories]
        # Data rows recur as the same objects; drawn trajectories never do.
        cached = not self.moves and all(t.draw_id is None for t in trajectories)
        known = [cached and id(t) in self._cache for t in trajectories]
        result_ET = torch.zeros(batch.tokens_ET.shape)
        fresh_E = ~torch.tensor(known)
        if fresh_E.any():
            part = batch.select(fresh_E.nonzero().squeeze(1))
            result_ET[fresh_E] = models.output("reference", "logprobs", part)
        for e, trajectory in enumerate(trajectories):
            length = int(batch.lengths_E[e])
            if known[e]:
                result_ET[e, :length] = self._cache[id(trajectory)][1]
            elif cached:
                self._cache[id(trajectory)] = (trajectory, result_ET[e, :length].clone())
        return {"ref_logprobs": result_ET}

    def move(self, step: int) -> None:
        """Reset or average after ``step``, as the settings say."""
        if self.kl.reference == "average":
            average(self.policy, self.followed, self.kl.decay)
        elif self.kl.reference == "reset" and step % self.kl.reset_every == 0:
            follow(self.policy, self.followed)
