"""A step's trajectories as tensors, and what methods and models add to them. The axes are those of `sharpen.types`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor


class Streams(Mapping[str, Tensor]):
    """Tensors by name, such as ``old_logprobs``; per token [E, T] unless the producer says otherwise.

    Raises KeyError, with the names that there are, for a stream that nobody produced.
    """

    __slots__ = ("_tensors",)

    def __init__(self, tensors: Mapping[str, Tensor] | None = None, **named: Tensor) -> None:
        self._tensors = {**(tensors or {}), **named}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._tensors:
            known = ", ".join(self._tensors) or "none"
            raise KeyError(f"no stream `{name}`: a method or its objective must ask for it. There are: {known}")
        return self._tensors[name]

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def with_(self, **named: Tensor) -> Streams:
        return Streams(self._tensors, **named)

    def without(self, *names: str) -> Streams:
        return Streams({name: tensor for name, tensor in self._tensors.items() if name not in names})

    def each(self, change: Callable[[Tensor], Tensor]) -> Streams:
        return Streams({name: change(tensor) for name, tensor in self._tensors.items()})


@dataclass(frozen=True, slots=True)
class SampleIndex:
    """Where the B samples of a batch are, ordered by trajectory and then by start.

    Sample b follows prefix number ``prefix_B[b]``; its tokens are those of row ``trajectory_B[b]`` from column
    ``start_B[b]`` on, up to the next sample of that row.
    """

    trajectory_B: Tensor
    prefix_B: Tensor
    start_B: Tensor

    @staticmethod
    def one_each(prefix_E: Tensor) -> SampleIndex:
        """One sample per trajectory, which follows prefix ``prefix_E[e]``."""
        return SampleIndex(torch.arange(len(prefix_E)), prefix_E, torch.zeros_like(prefix_E))

    def __len__(self) -> int:
        return len(self.trajectory_B)

    def ends(self, width: int) -> Tensor:
        """The column at which each sample ends in rows of ``width`` columns, [B]."""
        followed_B = self.trajectory_B[1:] == self.trajectory_B[:-1]
        end_B = torch.full_like(self.start_B, width)
        end_B[:-1] = torch.where(followed_B, self.start_B[1:], end_B[:-1])
        return end_B

    def of(self, index_E: Tensor) -> SampleIndex:
        """The samples of the trajectories ``index_E``, which are numbered in that order."""
        count = int(self.trajectory_B.max()) + 1 if len(self) else 0
        place_E = torch.full((count,), -1)
        place_E[index_E] = torch.arange(len(index_E))
        place_B = place_E[self.trajectory_B]
        order_B = place_B.argsort(stable=True)
        kept_B = order_B[place_B[order_B] >= 0]
        return SampleIndex(place_B[kept_B], self.prefix_B[kept_B], self.start_B[kept_B])


@dataclass(frozen=True, slots=True)
class Batch:
    """The trajectories of a rollout or of one optimizer step as tensors, padded on the right to the longest.

    A trajectory's row holds the tokens of its samples one after another; ``samples`` says where each begins and which
    of ``prefixes`` it follows. ``mask_ET`` is the loss mask: tokens of the model's own, drawn or marked in a
    demonstration, of a trajectory with a score if scores are needed; once the advantages are there, the method may
    narrow it. ``rewards_E`` is NaN without a reward. ``rewards_EK`` holds the K rewards of which ``rewards_E`` is the
    sum weighted by ``reward_weights``, None if there is only one. ``completion_limit`` is the most tokens that a policy
    may draw in a trajectory, and ``truncated_E`` marks those that ran out of tokens or of context. ``lengths_E`` counts
    the tokens of each row. ``versions_ET`` are the policy versions that drew the tokens, `NOT_DRAWN` for all others.

    ``streams`` holds what the method and the models add, read as ``batch["old_logprobs"]``: see
    `sharpen.training.streams` for the names and their producers. ``coefficients`` are the current values of those that
    change during training.
    """

    prefixes: tuple[Tensor, ...]
    samples: SampleIndex
    group_E: Tensor
    tokens_ET: Tensor
    mask_ET: Tensor
    rewards_E: Tensor
    truncated_E: Tensor
    lengths_E: Tensor
    versions_ET: Tensor
    completion_limit: int
    rewards_EK: Tensor | None = None
    reward_weights: tuple[float, ...] = ()
    streams: Streams = field(default_factory=Streams)
    coefficients: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.tokens_ET.shape[0]

    def __getitem__(self, name: str) -> Tensor:
        return self.streams[name]

    def __contains__(self, name: object) -> bool:
        return name in self.streams

    def with_streams(self, **named: Tensor) -> Batch:
        return replace(self, streams=self.streams.with_(**named))

    @property
    def groups(self) -> int:
        """The number of groups."""
        return int(self.group_E.max()) + 1

    @property
    def prefix_ET(self) -> Tensor:
        """The number of the prefix that each token follows."""
        prefix_ET = torch.zeros_like(self.tokens_ET)
        samples = self.samples
        for e, start, prefix in zip(samples.trajectory_B, samples.start_B, samples.prefix_B, strict=True):
            prefix_ET[e, start:] = prefix
        return prefix_ET

    def select(self, index_E: Tensor) -> Batch:
        """The trajectories ``index_E``, in that order. Groups and prefixes keep their numbers."""
        if len(index_E) == len(self) and torch.equal(index_E, torch.arange(len(self))):
            return self
        return replace(self._each_tensor(lambda tensor: tensor[index_E]), samples=self.samples.of(index_E))

    def within(self, inside_ET: Tensor) -> Batch:
        """The same, in which only the tokens ``inside_ET`` count: the others have no weight."""
        batch = replace(self, mask_ET=self.mask_ET & inside_ET)
        weights = self["weights"]
        return batch.with_streams(weights=weights * inside_ET) if weights.dim() > 1 else batch

    def to(self, device: torch.device) -> Batch:
        """The same on another device; prefixes and samples stay where they are."""
        return self._each_tensor(lambda tensor: tensor.to(device, non_blocking=True))

    def _each_tensor(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {
            f.name: change(value) for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **changed, streams=self.streams.each(change))


Need = Literal["logprobs", "entropy", "exact_kl", "values", "scores"]
"""What a loss may need from a model's forward pass.

``logprobs`` is log π of the token and ``entropy`` the entropy of π there, in nats; ``exact_kl`` is KL(π ‖ π_ref) there
over the whole vocabulary. ``values`` is a value head's output *before* the token, the value of the state in which it
was drawn; ``scores`` is a reward head's output *at* the token.
"""

Outputs = Streams
"""A model's outputs at the trained tokens of a batch by `Need`, each [E, T] and 0 elsewhere."""

Atom = Literal["token", "trajectory", "group"]
"""What a loss needs together in one micro-batch: no more than a token, a whole trajectory, or a whole group."""
