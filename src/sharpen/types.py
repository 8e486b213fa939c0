"""The data types that all parts of the program share.

Axes, written as a suffix of tensor names:

    P   prompts of a step            G   completions per prompt
    B   sequences, B = sum of G      T   completion tokens, padded to the longest
    R   packed rows                  L   tokens of a packed row
    N   tokens that are trained on   V   vocabulary
    K   combined rewards

``logprobs_ET[b, t]`` is the log-probability of the t-th completion token of sequence b. Names carry units
(``timeout_s``, ``kl_nats``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from typing import Any, Literal

import torch
from torch import Tensor

Row = Mapping[str, Any]
"""One row of a data set: column name to value."""


class Finish(StrEnum):
    """Why a completion ended."""

    EOS = "eos"
    STOP = "stop_string"
    LENGTH = "length"


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt. ``row`` holds all columns of its data row, which the reward gets as keywords.

    ``messages`` is the conversation that ``text`` was rendered from, including the system message; empty if the prompt
    is plain text.
    """

    id: str
    token_ids: tuple[int, ...]
    text: str
    row: Row
    messages: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """A completion, as token ids: its text is never tokenised again for training.

    ``loss_mask`` says per token whether it is trained on. ``sample_logprobs`` are the log-probabilities with which the
    tokens were sampled and ``versions`` the policy versions that sampled them; both are empty for data that this run's
    policy did not generate. ``draw_id`` is unique within a run.
    """

    token_ids: tuple[int, ...]
    text: str
    loss_mask: tuple[bool, ...]
    finish: Finish
    sample_logprobs: tuple[float, ...] = ()
    versions: tuple[int, ...] = ()
    draw_id: int | None = None


@dataclass(frozen=True, slots=True)
class StepValue:
    """The reward of one step of a completion; the step ends at token ``position``."""

    position: int
    value: float


@dataclass(frozen=True, slots=True)
class WeightedReward:
    """One term of a weighted sum of rewards; ``value`` is None if the reward does not apply."""

    weight: float
    value: float | None


@dataclass(frozen=True, slots=True)
class Score:
    """The reward of a completion.

    ``total`` is None if the reward does not apply or failed; such a completion does not count in the baseline and is
    not trained on. ``parts`` are the named rewards that make up the total. ``error`` says why the reward failed,
    ``timed_out`` whether it took too long, ``retries`` how many calls were repeated. If the total is a weighted sum,
    ``weighted_rewards`` are its terms, weight · value, of the same rewards for all completions of a step.
    """

    total: float | None
    parts: Mapping[str, float | None] = field(default_factory=dict)
    steps: tuple[StepValue, ...] = ()
    error: str | None = None
    timed_out: bool = False
    retries: int = 0
    weighted_rewards: tuple[WeightedReward, ...] = ()


@dataclass(frozen=True, slots=True)
class Group:
    """A prompt with its completions and, once they are scored, one score for each."""

    prompt: Prompt
    completions: tuple[Completion, ...]
    scores: tuple[Score, ...] = ()

    def scored(self, scores: tuple[Score, ...]) -> Group:
        if len(scores) != len(self.completions):
            raise ValueError(f"{len(scores)} scores for {len(self.completions)} completions")
        return replace(self, scores=scores)


@dataclass(frozen=True, slots=True)
class Batch:
    """The sequences of a rollout or of one optimizer step as tensors, padded on the right to the longest.

    ``prompts`` are token ids, one tensor per group; ``group_E`` says which of them each sequence answers. ``mask_ET``
    is the loss mask: tokens of the model's own, sampled or marked in a demonstration, of a sequence with a score if
    scores are needed; once the advantages are there, the method may narrow it. ``rewards_E`` is NaN without a reward;
    ``step_rewards_ET`` holds the reward of each step at its last token and NaN elsewhere; None if the reward does not
    score steps. ``rewards_EK`` holds the K rewards of which ``rewards_E`` is the sum weighted by ``reward_weights``,
    None if there is only one. ``truncated_E`` marks completions that were cut off at
    ``completion_limit`` tokens, and ``lengths_E`` counts the tokens of each, trained or not. ``sample_logprobs_ET`` are
    the engine's log-probabilities.

    The rest is filled in later. The method adds advantages, the critic's targets, the weight of each loss term ([E, T]
    or [E]) and the current coefficients; the models add π_old (``old_logprobs_ET``), π_ref (``ref_logprobs_ET``),
    values and the exact KL of the policy that sampled to the reference (``kl_ET``, nats). ``values_ET`` are the values
    before each token; ``final_values_E`` are those after the last token of truncated completions, and 0 for all others;
    None unless the method bootstraps.
    """

    prompts: tuple[Tensor, ...]
    group_E: Tensor
    tokens_ET: Tensor
    mask_ET: Tensor
    rewards_E: Tensor
    truncated_E: Tensor
    completion_limit: int
    step_rewards_ET: Tensor | None = None
    rewards_EK: Tensor | None = None
    reward_weights: tuple[float, ...] = ()
    lengths_E: Tensor | None = None
    sample_logprobs_ET: Tensor | None = None
    old_logprobs_ET: Tensor | None = None
    ref_logprobs_ET: Tensor | None = None
    kl_ET: Tensor | None = None
    values_ET: Tensor | None = None
    final_values_E: Tensor | None = None
    advantages_ET: Tensor | None = None
    targets_ET: Tensor | None = None
    weights: Tensor | None = None
    coefficients: Mapping[str, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.tokens_ET.shape[0]

    def select(self, index_E: Tensor) -> Batch:
        """The sequences ``index_E``, in that order. Groups keep their numbers."""
        if len(index_E) == len(self) and torch.equal(index_E, torch.arange(len(self))):
            return self
        return self._each_tensor(lambda tensor: tensor[index_E])

    def to(self, device: torch.device) -> Batch:
        """The same on another device; the prompts stay where they are."""
        return self._each_tensor(lambda tensor: tensor.to(device, non_blocking=True))

    def _each_tensor(self, change: Callable[[Tensor], Tensor]) -> Batch:
        changed: dict[str, Any] = {
            f.name: change(value) for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **changed)


Annotation = Literal["old_logprobs", "ref_logprobs", "kl", "values", "final_values"]
"""What the models add to a batch before it is trained on."""

Need = Literal["logprobs", "entropy", "exact_kl", "values", "scores"]
"""What a loss needs from a model's forward pass; see ``Outputs``."""


@dataclass(frozen=True, slots=True)
class Outputs:
    """A model's outputs at the trained tokens of a batch, each [E, T] and 0 elsewhere; None if not requested.

    ``logprobs_ET`` is log π of the token and ``entropy_ET`` the entropy of π there, in nats; ``kl_ET`` is
    KL(π ‖ π_ref) there over the whole vocabulary. ``values_ET`` is a value head's output *before* the token, the value
    of the state in which it was sampled; ``scores_ET`` is a reward head's output *at* the token.
    """

    logprobs_ET: Tensor | None = None
    entropy_ET: Tensor | None = None
    kl_ET: Tensor | None = None
    values_ET: Tensor | None = None
    scores_ET: Tensor | None = None
